/* SPDX-License-Identifier: Apache-2.0 */
/* The bare fault loop as one process with a thread for each VMM, which is how pagerd serves
 * several: the floor for guests that fault at the same time.
 *
 *	bare_pager SOCKET IMAGE
 *
 * Firecracker's handshake of one region (--regions 1) and small pages; says "ready" once it
 * listens, and ends with its input. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/vmm/vmm.h"

#define BODY_BYTES 1024

struct client {
	struct vmm_memory memory;
	struct pager pager;
	int sock;
};

static struct pager shared;
static uint64_t image_bytes;

static int
listen_at(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (bind(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(sock, 64) < 0)
		return -errno;
	return sock;
}

/* The body arrives whole: the VMM sends it in one piece. */
static int
receive(int sock, char *body, int *ret_uffd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = body, .iov_len = BODY_BYTES - 1};
	struct msghdr msg = {
	    .msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (n < 0)
		return -errno;
	if (c == NULL || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	body[n] = '\0';
	memcpy(ret_uffd, CMSG_DATA(c), sizeof(int));
	return 0;
}

static int
parse(const char *body, struct vmm_memory *m)
{
	json_t *root = json_loads(body, 0, NULL), *region = json_array_get(root, 0);
	json_t *host = json_object_get(region, "base_host_virt_addr");
	json_t *bytes = json_object_get(region, "size");
	json_t *offset = json_object_get(region, "offset");
	bool is_good = json_array_size(root) == 1 && json_is_integer(host) &&
	    json_is_integer(bytes) && json_is_integer(offset);

	if (is_good) {
		uintptr_t at = (uintptr_t)json_integer_value(host);

		m->nr_regions = 1;
		m->page_bytes = VMM_PAGE_BYTES;
		m->regions[0] = (struct vmm_region){
		    .host = (uint8_t *)at, // NOLINT(performance-no-int-to-ptr): the VMM's
		    .bytes = (uint64_t)json_integer_value(bytes),
		    .offset = (uint64_t)json_integer_value(offset),
		};
		is_good = m->regions[0].offset + m->regions[0].bytes <= image_bytes;
	}
	json_decref(root);
	return is_good ? 0 : -EPROTO;
}

static void *
serve(void *arg)
{
	struct client *client = arg;

	pager_serve(&client->pager);
	close(client->memory.uffd);
	close(client->sock);
	free(client->pager.removed);
	free(client);
	return NULL;
}

static int
start(int sock)
{
	struct client *client = calloc(1, sizeof(*client));
	char body[BODY_BYTES];
	pthread_t thread;
	int err;

	if (client == NULL)
		return -ENOMEM;
	client->sock = sock;
	client->memory.uffd = -1;
	err = receive(sock, body, &client->memory.uffd);
	if (err == 0)
		err = parse(body, &client->memory);
	client->pager = shared;
	client->pager.memory = &client->memory;
	client->pager.removed = calloc(image_bytes / VMM_PAGE_BYTES, 1);
	if (err == 0 && client->pager.removed == NULL)
		err = -ENOMEM;
	if (err == 0)
		err = -pthread_create(&thread, NULL, serve, client);
	if (err == 0)
		return -pthread_detach(thread);
	free(client->pager.removed);
	free(client);
	return err;
}

static int
listen_for_ever(int listener)
{
	struct pollfd fds[] = {
	    {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};

	while (poll(fds, 2, -1) > 0 && fds[0].revents == 0) {
		int sock = accept(listener, NULL, NULL);
		int err = sock < 0 ? -errno : start(sock);

		/* A floor that lost a guest is none. */
		if (err < 0)
			return err;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	struct stat st = {0};
	int fd, err;

	if (argc != 3) {
		fputs("usage: bare_pager SOCKET IMAGE\n", stderr);
		return 2;
	}
	err = stat(argv[2], &st) < 0 ? -errno : 0;
	image_bytes = (uint64_t)st.st_size;
	if (err == 0)
		err = pager_open(&shared, argv[2], image_bytes, VMM_PAGE_BYTES);
	fd = err == 0 ? listen_at(argv[1]) : err;
	if (fd >= 0) {
		puts("ready");
		fflush(stdout);
		err = listen_for_ever(fd);
	} else {
		err = fd;
	}
	if (err < 0) {
		fprintf(stderr, "bare_pager: %s\n", strerror(-err));
		return 1;
	}
	return 0;
}
