/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's side of Firecracker's handshake, and the forms of older and forked ones. */
#include "tests/vmm/vmm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BODY_BYTES 1024
#define MAX_FDS	   2

static int
append_region(char *body, size_t size, const struct vmm_region *r, uint64_t page_bytes,
    enum vmm_handshake form)
{
	size_t used = strlen(body);
	char page_size[64] = "";
	char page_size_kib[64] = "";
	int n;

	/* page_size_kib is in bytes too, whatever its name says. */
	if (form != HANDSHAKE_OLD3)
		snprintf(page_size_kib, sizeof(page_size_kib), ",\"page_size_kib\":%" PRIu64,
		    page_bytes);
	if (form != HANDSHAKE_OLD3 && form != HANDSHAKE_OLD4)
		snprintf(page_size, sizeof(page_size), ",\"page_size\":%" PRIu64, page_bytes);
	n = snprintf(body + used, size - used,
	    "%s{\"base_host_virt_addr\":%" PRIuPTR ",\"size\":%" PRIu64 ",\"offset\":%" PRIu64
	    "%s%s}",
	    body[used - 1] == '[' ? "" : ",", (uintptr_t)r->host, r->bytes, r->offset, page_size,
	    page_size_kib);
	return n < 0 || (size_t)n >= size - used ? -EMSGSIZE : 0;
}

static int
make_body(char *body, size_t size, const struct vmm_memory *m, enum vmm_handshake form)
{
	uint32_t r;
	int err = 0;

	snprintf(body, size, "%s[", form == HANDSHAKE_WRAPPED ? "{\"mappings\":" : "");
	for (r = 0; r < m->nr_regions && err == 0; r++)
		err = append_region(body, size, &m->regions[r], m->page_bytes, form);
	if (err == 0 && strlen(body) + 3 > size)
		err = -EMSGSIZE;
	if (err == 0)
		strncat(body, form == HANDSHAKE_WRAPPED ? "]}" : "]", size - strlen(body) - 1);
	return err;
}

/* The descriptors travel with the first byte of data. */
static int
send_with_fds(int sock, const char *data, size_t bytes, const int *fds, size_t nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
	struct msghdr msg = {
	    .msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return (size_t)n == bytes ? 0 : -EMSGSIZE;
}

static int
send_split(int sock, const char *data, size_t bytes, const int *fds, size_t nr_fds)
{
	size_t i;
	int err = send_with_fds(sock, data, 1, fds, nr_fds);

	for (i = 1; i < bytes && err == 0; i++) {
		if (send(sock, data + i, 1, MSG_NOSIGNAL) != 1)
			err = -errno;
	}
	return err;
}

static int
connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (connect(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int err = -errno;

		close(sock);
		return err;
	}
	*ret_fd = sock;
	return 0;
}

int
handshake_send(struct vmm_memory *m, const struct vmm_options *o)
{
	const int fds[MAX_FDS] = {m->uffd, m->memfd};
	size_t nr_fds = m->memfd >= 0 ? 2 : 1;
	char body[BODY_BYTES];
	int err = make_body(body, sizeof(body), m, o->handshake);

	if (err == 0)
		err = connect_to(o->path, &m->socket);
	if (err < 0)
		return err;
	if (o->handshake == HANDSHAKE_SPLIT1)
		return send_split(m->socket, body, strlen(body), fds, nr_fds);
	return send_with_fds(m->socket, body, strlen(body), fds, nr_fds);
}
