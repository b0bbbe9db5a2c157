/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/http_conn.h"

#define MAX_ACCEPTS_A_TURN 32
#define ACCEPT_BACKOFF_S   0.1

static const struct http_limits default_limits = {.timeout_ms = 10000, .max_clients = 256};

/* Who connected, by the kernel's word.  A peer of more groups than fit keeps the
 * first ones: it may do less, never more. */
static int
read_peer(int fd, struct peer *ret)
{
	struct ucred cred;
	socklen_t bytes = sizeof(cred);
	scoped_free gid_t *all = NULL;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) < 0)
		return -errno;
	*ret = (struct peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
	bytes = sizeof(ret->groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, ret->groups, &bytes) == 0) {
		ret->nr_groups = bytes / sizeof(gid_t);
		return 0;
	}
	if (errno != ERANGE)
		return 0;
	all = malloc(bytes);
	if (all && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, all, &bytes) == 0) {
		memcpy(ret->groups, all, sizeof(ret->groups));
		ret->nr_groups = PEER_MAX_GROUPS;
	}
	return 0;
}

static uint32_t
nr_counted(const struct http_server *server)
{
	return server->pool ? server->pool->nr_conns : server->nr_conns;
}

static void
accept_again(struct http_server *server)
{
	if (!server->retired && nr_counted(server) < server->limits.max_clients &&
	    !ev_is_active(&server->backoff))
		ev_io_start(server->loop, &server->accept);
}

static void
on_backoff(struct ev_loop *loop, ev_timer *watcher, int revents)
{
	struct http_server *server = watcher->data;

	(void)loop;
	(void)revents;
	accept_again(server);
}

/* A full backlog stays readable: to go on polling it would be to spin. */
static void
pause_accept(struct http_server *server, int error)
{
	ev_io_stop(server->loop, &server->accept);
	if (!error)
		return;
	log_limited(&server->log, LOG_LEVEL_WARNING,
	    "http: accept: %s; new clients wait, clients=%u", strerror(error), server->nr_conns);
	ev_timer_stop(server->loop, &server->backoff);
	ev_timer_set(&server->backoff, ACCEPT_BACKOFF_S, 0.0);
	ev_timer_start(server->loop, &server->backoff);
}

static void
accept_one(struct http_server *server, int accepted)
{
	scoped_fd int fd = accepted;
	struct peer peer;
	int r = read_peer(fd, &peer);

	if (r < 0) {
		log_limited(&server->log, LOG_LEVEL_WARNING,
		    "http: who has connected is unknown: %s; hung up", strerror(-r));
		return;
	}
	http_conn_new(server, fd_take(&fd), &peer);
}

static void
on_accept(struct ev_loop *loop, ev_io *watcher, int revents)
{
	struct http_server *server = watcher->data;
	int fd;

	(void)loop;
	(void)revents;
	for (int i = 0; i < MAX_ACCEPTS_A_TURN; i++) {
		if (nr_counted(server) >= server->limits.max_clients) {
			log_limited(&server->log, LOG_LEVEL_WARNING,
			    "http: clients=%u is the limit; more must wait", nr_counted(server));
			pause_accept(server, 0);
			return;
		}
		fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno != EAGAIN)
				pause_accept(server, errno);
			return;
		}
		accept_one(server, fd);
	}
}

void
http_server_count(struct http_server *server)
{
	server->nr_conns++;
	if (server->pool)
		server->pool->nr_conns++;
}

void
http_server_uncount(struct http_server *server)
{
	struct list *pos;

	server->nr_conns--;
	if (!server->pool) {
		accept_again(server);
		return;
	}
	server->pool->nr_conns--;
	list_for_each(pos, &server->pool->servers)
		accept_again(list_entry(pos, struct http_server, shares));
}

void
http_pool_init(struct http_pool *pool)
{
	*pool = (struct http_pool){0};
	list_init(&pool->servers);
}

void
http_server_share(struct http_server *server, struct http_pool *pool)
{
	server->pool = pool;
	list_add(&pool->servers, &server->shares);
}

static void
on_sweep(struct ev_loop *loop, ev_prepare *watcher, int revents)
{
	struct http_server *server = watcher->data;
	struct list *pos, *tmp;

	(void)loop;
	(void)revents;
	list_for_each_safe(pos, tmp, &server->dead)
		http_conn_free(list_entry(pos, struct http_conn, link));
}

struct http_server *
http_server_new(struct ev_loop *loop, int fd, http_handler_fn handler, void *arg,
    const struct http_limits *limits)
{
	struct http_server *server = xcalloc(1, sizeof(*server));

	server->loop = loop;
	server->fd = fd;
	server->handler = handler;
	server->arg = arg;
	server->limits = limits ? *limits : default_limits;
	list_init(&server->conns);
	list_init(&server->dead);
	list_init(&server->shares);
	ev_io_init(&server->accept, on_accept, fd, EV_READ);
	ev_timer_init(&server->backoff, on_backoff, 0.0, 0.0);
	ev_prepare_init(&server->sweep, on_sweep);
	/* After every other watcher of the turn, which may still look at what it ended. */
	ev_set_priority(&server->sweep, EV_MINPRI);
	server->accept.data = server->backoff.data = server->sweep.data = server;
	ev_io_start(loop, &server->accept);
	ev_prepare_start(loop, &server->sweep);
	return server;
}

void
http_server_free(struct http_server *server)
{
	struct list *pos, *tmp;

	if (!server)
		return;
	list_for_each_safe(pos, tmp, &server->conns)
		http_conn_kill(list_entry(pos, struct http_conn, link));
	list_remove(&server->shares);
	on_sweep(server->loop, &server->sweep, 0);
	ev_io_stop(server->loop, &server->accept);
	ev_timer_stop(server->loop, &server->backoff);
	ev_prepare_stop(server->loop, &server->sweep);
	fd_closep(&server->fd);
	free(server);
}

void
http_server_retire(struct http_server *server)
{
	struct list *pos, *tmp;

	server->retired = true;
	ev_io_stop(server->loop, &server->accept);
	ev_timer_stop(server->loop, &server->backoff);
	fd_closep(&server->fd);
	list_for_each_safe(pos, tmp, &server->conns)
		http_conn_retire(list_entry(pos, struct http_conn, link));
}

void
http_server_set_plain(struct http_server *server)
{
	server->plain = true;
}

void *
http_server_arg(const struct http_server *server)
{
	return server->arg;
}

uint32_t
http_server_clients(const struct http_server *server)
{
	return server->nr_conns;
}

void
http_server_set_limits(struct http_server *server, const struct http_limits *limits)
{
	server->limits = *limits;
	accept_again(server);
}
