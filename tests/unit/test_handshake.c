/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a handshake: good and bad, whole, cut anywhere, byte by byte. */
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "common/scope.h"
#include "tests/unit/tap.h"
#include "worker/handshake.h"

#define GIB UINT64_C(1073741824)

/* Valid alone: a region as Firecracker since 1.12 sends it. */
#define REGION(base, size, offset, page)                                         \
	"{\"base_host_virt_addr\":" base ",\"size\":" size ",\"offset\":" offset \
	",\"page_size\":" page ",\"page_size_kib\":" page "}"
#define BARE(base, size, offset) \
	"{\"base_host_virt_addr\":" base ",\"size\":" size ",\"offset\":" offset "}"
#define BASE "140737488281600" /* 0x7fffffff0000: 64 KiB below 2^47 */

struct text {
	const char *name;
	const char *json;
	uint64_t image_bytes; /* 0: 16 GiB */
	const char *reason;   /* part of it; NULL: it is accepted */
};

static const struct text texts[] = {
    /* what VMMs send */
    {"Firecracker 1.1: no page size", "[" BARE("4096", "4096", "0") "]", 0, NULL},
    {"Firecracker 1.7: page_size_kib, in bytes",
	"[{\"base_host_virt_addr\":65536,\"size\":8192,\"offset\":0,\"page_size_kib\":4096}]", 0,
	NULL},
    {"Firecracker 1.12: both", "[" REGION("65536", "8192", "4096", "4096") "]", 0, NULL},
    {"huge pages", "[" REGION("2097152", "4194304", "2097152", "2097152") "]", 0, NULL},
    {"wrapped in an object", "{\"mappings\":[" BARE("65536", "4096", "0") "]}", 0, NULL},
    {"wrapped, with more", "{\"v\":[{}],\"mappings\":[" BARE("65536", "4096", "0") "]}", 0, NULL},
    {"unknown fields",
	"[{\"base_host_virt_addr\":65536,\"size\":4096,\"offset\":0,\"gpa_start\":-1.5,"
	"\"x\":{\"y\":[null,true,\"\\\"]}\\\\\"]}}]",
	0, NULL},
    {"whitespace everywhere",
	" \r\n\t[ {\"base_host_virt_addr\" : 65536 , \"size\" : 4096 ,\n\"offset\":0 } ]\n \t\r\n",
	0, NULL},
    {"around the gap at 3 GiB",
	"[" REGION("1099511627776", "3221225472", "0", "4096") "," REGION(
	    "2199023255552", "1073741824", "3221225472", "4096") "]",
	4 * GIB, NULL},
    {"adjacent in memory, crossed in the image",
	"[" BARE("65536", "4096", "4096") "," BARE("69632", "4096", "0") "]", 8192, NULL},
    /* sizes */
    {"just below 2 GiB", "[" BARE("65536", "2147479552", "0") "]", 2147479552, NULL},
    {"2 GiB", "[" BARE("65536", "2147483648", "0") "]", 2 * GIB, NULL},
    {"just below 4 GiB", "[" BARE("65536", "4294963200", "0") "]", 4294963200, NULL},
    {"4 GiB", "[" BARE("65536", "4294967296", "0") "]", 4 * GIB, NULL},
    {"beyond 4 GiB, offset too", "[" BARE("65536", "6442450944", "4294971392") "]", 10 * GIB + 4096,
	NULL},
    {"the last page below 2^47", "[" BARE(BASE, "65536", "0") "]", 0, NULL},
    {"an image that ends within a page", "[" BARE("65536", "8192", "0") "]", 4097, NULL},
    {"one page more than that image", "[" BARE("65536", "12288", "0") "]", 4097,
	"exceeds the image of 4097 bytes"},
    {"4 GiB + 1 page in an image of 4 GiB", "[" BARE("65536", "4294971392", "0") "]", 4 * GIB,
	"region 0: offset 0 + size 4294971392 exceeds the image of 4294967296 bytes"},
    {"4 GiB that would be 0 in 32 bits", "[" BARE("65536", "4294967296", "0") "]", 4096,
	"exceeds the image"},
    {"an offset beyond the image", "[" BARE("65536", "4096", "8192") "]", 4096,
	"offset 8192 + size 4096 exceeds"},
    /* addresses */
    {"address 0", "[" BARE("0", "4096", "0") "]", 0, "region 0: base_host_virt_addr is 0"},
    {"outside user space", "[" BARE("9223372036854771712", "4096", "0") "]", 0,
	"region 0: base_host_virt_addr 0x7ffffffffffff000 + size 4096 is outside"},
    {"address 2^63", "[" BARE("9223372036854775808", "4096", "0") "]", 0, "below 2^63"},
    {"address 2^64 - 4096: it would wrap", "[" BARE("18446744073709547520", "8192", "0") "]", 0,
	"below 2^63"},
    {"address 2^64", "[" BARE("18446744073709551616", "4096", "0") "]", 0, "below 2^63"},
    {"a negative size", "[" BARE("65536", "-4096", "0") "]", 0,
	"region 0: size is negative: -4096"},
    {"size 0", "[" BARE("65536", "0", "0") "]", 0, "region 0: size is 0"},
    /* alignment and page sizes */
    {"a misaligned address", "[" BARE("65537", "4096", "0") "]", 0,
	"region 0: base_host_virt_addr 0x10001 is not a multiple of its page size 4096"},
    {"a misaligned size", "[" BARE("65536", "4097", "0") "]", 0, "size 0x1001 is not"},
    {"a misaligned offset", "[" BARE("65536", "4096", "1") "]", 0, "offset 0x1 is not"},
    {"a huge page at a small address", "[" REGION("4096", "2097152", "0", "2097152") "]", 0,
	"base_host_virt_addr 0x1000 is not a multiple of its page size 2097152"},
    {"a huge page at a small offset", "[" REGION("2097152", "2097152", "4096", "2097152") "]", 0,
	"offset 0x1000 is not"},
    {"half a huge page", "[" REGION("2097152", "1048576", "0", "2097152") "]", 0, "size"},
    {"an unknown page size", "[" REGION("65536", "65536", "0", "16384") "]", 0,
	"region 0: page size 16384 is neither 4096 nor 2097152"},
    {"1 GiB pages", "[" REGION("1073741824", "1073741824", "0", "1073741824") "]", 0,
	"page size 1073741824 is neither"},
    {"page size 0", "[" REGION("65536", "4096", "0", "0") "]", 0, "page size 0 is neither"},
    {"page_size_kib really in KiB",
	"[{\"base_host_virt_addr\":65536,\"size\":4096,\"offset\":0,\"page_size_kib\":4}]", 0,
	"page size 4 is neither 4096 nor 2097152 bytes (page_size_kib is in bytes too)"},
    {"page sizes that disagree",
	"[{\"base_host_virt_addr\":65536,\"size\":4096,\"offset\":0,\"page_size\":4096,"
	"\"page_size_kib\":4}]",
	0, "region 0: page_size 4096 and page_size_kib 4 disagree"},
    /* overlap */
    {"the same region twice", "[" BARE("65536", "4096", "0") "," BARE("65536", "4096", "4096") "]",
	0, "regions 0 and 1 overlap in the VMM's memory"},
    {"overlap by one page, out of order",
	"[" BARE("73728", "8192", "0") "," BARE("1048576", "4096", "8192") "," BARE(
	    "65536", "12288", "12288") "]",
	0,
	"regions 2 and 0 overlap in the VMM's memory: [0x10000, 0x13000) and "
	"[0x12000, 0x14000)"},
    {"one within another",
	"[" BARE("65536", "1048576", "0") "," BARE("131072", "4096", "1048576") "]", 0,
	"regions 0 and 1 overlap in the VMM's memory"},
    {"overlap in the image", "[" BARE("65536", "8192", "0") "," BARE("1048576", "4096", "4096") "]",
	0, "regions 0 and 1 overlap in the image: [0x0, 0x2000) and [0x1000, 0x2000)"},
    /* structure */
    {"no region", "[]", 0, "no region"},
    {"an object without mappings", "{\"regions\":[]}", 0, "neither an array of regions nor"},
    {"mappings that are no array", "{\"mappings\":{}}", 0, "neither an array of regions nor"},
    {"an array of numbers", "[1]", 0, "region 0: not an object"},
    {"an array of arrays", "[[]]", 0, "region 0: not an object"},
    {"a bad second region", "[" BARE("65536", "4096", "0") ",null]", 0, "region 1: not an object"},
    {"no address", "[{\"size\":4096,\"offset\":0}]", 0, "region 0: base_host_virt_addr is missing"},
    {"no size", "[{\"base_host_virt_addr\":65536,\"offset\":0}]", 0, "region 0: size is missing"},
    {"no offset", "[{\"base_host_virt_addr\":65536,\"size\":4096}]", 0,
	"region 0: offset is missing"},
    {"a real", "[" BARE("65536", "4096.0", "0") "]", 0, "region 0: size is not an integer"},
    {"an exponent", "[" BARE("65536", "4e3", "0") "]", 0, "size is not an integer"},
    {"a string", "[" BARE("\"65536\"", "4096", "0") "]", 0,
	"base_host_virt_addr is not an integer"},
    {"null", "[" BARE("65536", "4096", "null") "]", 0, "offset is not an integer"},
    {"a page size that is a string", "[" REGION("65536", "4096", "0", "\"4096\"") "]", 0,
	"page_size is not an integer"},
    {"a name twice", "[{\"size\":4096,\"base_host_virt_addr\":65536,\"offset\":0,\"size\":8192}]",
	0, "duplicate"},
    /* not JSON, or not only */
    {"HTTP", "GET / HTTP/1.1\r\n\r\n", 0, "byte 0 is 0x47, not the [ or {"},
    {"a number", "17", 0, "not a handshake"},
    {"a byte order mark", "\xef\xbb\xbf[]", 0, "byte 0 is 0xef"},
    {"a closing bracket first", "]", 0, "byte 0 is 0x5d"},
    {"crossed brackets", "[{]}", 0, "not JSON"},
    {"a trailing comma", "[" BARE("65536", "4096", "0") ",]", 0, "not JSON"},
    {"bytes that are not UTF-8", "[\"\xff\xfe\"]", 0, "not JSON"},
    {"a control character in a text", "[\"\x01\"]", 0, "not JSON"},
    {"an infinite number", "[1e999999]", 0, "out of range"},
    {"data after it", "[" BARE("65536", "4096", "0") "]x", 0,
	"after" /* the JSON value, or a complete handshake */},
    {"another value after it", "[" BARE("65536", "4096", "0") "] []", 0, "after"},
};

static int
some_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		abort();
	return fd;
}

/* Feeds the text in pieces of at most step bytes, the descriptor with the first. */
static enum handshake_status
feed(struct handshake *h, const char *text, size_t n, size_t step)
{
	int fd = some_fd();

	for (size_t at = 0; at < n; at += step)
		handshake_feed(h, text + at, n - at < step ? n - at : step, &fd, at == 0 ? 1 : 0);
	return handshake_eof(h);
}

static void
check_text(const struct text *t)
{
	static const size_t steps[] = {SIZE_MAX / 2, 1, 2, 7, 64};
	uint64_t image_bytes = t->image_bytes != 0 ? t->image_bytes : 16 * GIB;
	enum handshake_status want = t->reason == NULL ? HANDSHAKE_DONE : HANDSHAKE_REFUSED;
	bool right = true;
	struct handshake h;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		handshake_init(&h, image_bytes, false);
		if (feed(&h, t->json, strlen(t->json), steps[i]) != want) {
			printf("# step %zu: status %d: %s\n", steps[i], (int)h.status, h.reason);
			right = false;
		}
		if (t->reason != NULL && strstr(h.reason, t->reason) == NULL) {
			printf("# step %zu: \"%s\"\n", steps[i], h.reason);
			right = false;
		}
		if ((h.fds[0] >= 0) != (want == HANDSHAKE_DONE) || h.bytes != NULL) {
			printf("# step %zu: descriptors or memory are kept wrongly\n", steps[i]);
			right = false;
		}
		handshake_fini(&h);
	}
	ok(right, "%s: %s", t->name, t->reason == NULL ? "accepted" : "refused");
}

static void
test_values(void)
{
	static const char text[] = "[" REGION("1099511627776", "3221225472", "0",
	    "4096") "," REGION("4398046511104", "6442450944", "4294967296", "2097152") "]";
	struct handshake h;

	handshake_init(&h, 10 * GIB, false);
	is_int(feed(&h, text, strlen(text), 1), HANDSHAKE_DONE, "two regions");
	is_int(h.nr_regions, 2, "their number");
	is_int(h.regions[0].host_addr, INT64_C(1099511627776), "address of the first");
	is_int(h.regions[0].size_bytes, INT64_C(3221225472), "its size");
	is_int(h.regions[0].page_bytes, 4096, "its page size");
	is_int(h.regions[1].host_addr, INT64_C(4398046511104), "address of the second");
	is_int(h.regions[1].size_bytes, INT64_C(6442450944), "its size");
	is_int(h.regions[1].offset, INT64_C(4294967296), "its offset");
	is_int(h.regions[1].page_bytes, 2097152, "its page size");
	handshake_fini(&h);
}

/* Every prefix is incomplete, and the end of the connection then a refusal. */
static void
test_truncated(void)
{
	static const char text[] = "[" REGION("65536", "8192", "4096", "4096") "]";
	bool waits = true;
	bool refuses = true;
	struct handshake h;

	for (size_t n = 0; n < strlen(text); n++) {
		int fd = some_fd();

		handshake_init(&h, GIB, false);
		waits &= handshake_feed(&h, text, n, &fd, 1) == HANDSHAKE_NEED_MORE;
		refuses &= handshake_eof(&h) == HANDSHAKE_REFUSED && h.fds[0] == -1 &&
		    strstr(h.reason, "before the JSON value was complete") != NULL;
		handshake_fini(&h);
	}
	ok(waits, "every prefix waits for more");
	ok(refuses, "every prefix is refused at the end of the connection");
}

/* What JSON's signed integers cannot say. */
static void
test_validate(void)
{
	static const struct {
		const char *name;
		struct region region;
		uint64_t image_bytes;
		const char *reason;
	} cases[] = {
	    {"address and size wrap to 0", {UINT64_MAX - 4095, 4096, 0, 4096}, GIB,
		"base_host_virt_addr 0xfffffffffffff000 + size 4096 wraps around 2^64"},
	    {"address and size wrap", {UINT64_MAX - 4095, 8192, 0, 4096}, GIB, "wraps"},
	    {"offset and size wrap", {65536, 8192, UINT64_MAX - 4095, 4096}, GIB,
		"exceeds the image"},
	    {"offset and size wrap, huge image", {65536, 8192, UINT64_MAX - 4095, 4096}, UINT64_MAX,
		"exceeds the image"},
	    {"an empty image", {65536, 4096, 0, 4096}, 0, "exceeds the image of 0 bytes"},
	    {"kernel space", {UINT64_C(0xffff800000000000), 4096, 0, 4096}, GIB,
		"outside the address space"},
	    {"the last page of 2^56", {(UINT64_C(1) << 56) - 4096, 4096, 0, 4096}, 4096, NULL},
	    {"across 2^56", {(UINT64_C(1) << 56) - 4096, 8192, 0, 4096}, 8192,
		"outside the address space"},
	};
	char reason[HANDSHAKE_REASON_BYTES];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = handshake_validate(&cases[i].region, 1, cases[i].image_bytes, reason);

		if (cases[i].reason == NULL)
			is_int(rc, 0, "%s", cases[i].name);
		else
			ok(rc < 0 && strstr(reason, cases[i].reason) != NULL, "%s: %s",
			    cases[i].name, reason);
	}
}

/* n regions of one page each; the caller frees. */
static char *
many_regions(size_t n)
{
	size_t room = n * 128 + 2;
	char *text = malloc(room);
	size_t at = 0;

	if (text == NULL)
		abort();
	text[at++] = '[';
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, room - at,
		    "%s{\"base_host_virt_addr\":%zu,\"size\":4096,\"offset\":%zu}",
		    i == 0 ? "" : ",", 65536 + i * 8192, i * 4096);
	text[at] = ']';
	text[at + 1] = '\0';
	return text;
}

static void
test_counts(void)
{
	static const struct {
		size_t n;
		const char *reason;
	} counts[] = {
	    {1, NULL},
	    {255, NULL},
	    {256, NULL},
	    {257, "257 regions; at most 256 are served"},
	    {10000, "10000 regions; at most 256 are served"},
	    {12000, "12000 regions; at most 256 are served"},
	};

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		scoped_free char *text = many_regions(counts[i].n);
		struct handshake h;

		handshake_init(&h, 16 * GIB, false);
		feed(&h, text, strlen(text), 4096);
		if (counts[i].reason == NULL)
			ok(h.status == HANDSHAKE_DONE && h.nr_regions == counts[i].n, "%zu regions",
			    counts[i].n);
		else
			is_str(h.reason, counts[i].reason, "%zu regions", counts[i].n);
		handshake_fini(&h);
	}
}

/* n times fill, between head and tail. */
static char *
padded(const char *head, char fill, size_t n, const char *tail)
{
	size_t bytes = strlen(head) + n + strlen(tail);
	char *text = malloc(bytes + 1);

	if (text == NULL)
		abort();
	memcpy(text, head, strlen(head));
	memset(text + strlen(head), fill, n);
	memcpy(text + strlen(head) + n, tail, strlen(tail) + 1);
	return text;
}

static void
check_long(const char *name, char *text, size_t step, const char *reason)
{
	struct handshake h;

	handshake_init(&h, GIB, false);
	feed(&h, text, strlen(text), step);
	if (reason == NULL)
		is_int(h.status, HANDSHAKE_DONE, "%s", name);
	else
		ok(h.status == HANDSHAKE_REFUSED && strstr(h.reason, reason) != NULL, "%s: %s",
		    name, h.reason);
	ok(h.room <= HANDSHAKE_MAX_BYTES, "%s: memory is bounded", name);
	handshake_fini(&h);
	free(text);
}

static void
test_limits(void)
{
	static const char one[] = BARE("65536", "4096", "0") "]";
	size_t room = HANDSHAKE_MAX_BYTES - strlen(one) - 1;

	check_long("1 MiB exactly", padded("[", ' ', room, one), 8191, NULL);
	check_long("1 MiB byte by byte", padded("[", ' ', room, one), 1, NULL);
	check_long(
	    "1 MiB and a byte", padded("[", ' ', room + 1, one), 8191, "longer than 1048576");
	check_long("2 MiB of one string, byte by byte",
	    padded("[\"", 'a', 2 * HANDSHAKE_MAX_BYTES, ""), 1, "longer than 1048576");
	check_long("1 MiB of escapes", padded("[\"", '\\', HANDSHAKE_MAX_BYTES - 3, "x"), 100,
	    "before the JSON value was complete");
	check_long("brackets, 1 MiB deep", padded("", '[', HANDSHAKE_MAX_BYTES, ""), 1000,
	    "nested deeper than 32 levels");
	check_long("commas", padded("[", ',', 100000, "]"), 1000, "more than 65536 values");
	check_long("a number of 1 MiB", padded("[", '9', HANDSHAKE_MAX_BYTES - 2, "]"), 8191,
	    "out of range");
}

/* A reason quotes the peer: what reaches a log or JSON must be harmless. */
static void
test_reason_is_clean(void)
{
	static const char text[] = "[{\"\x1b[31m\xc3\xa9\":1,\"\x7f\":2}}]";
	struct handshake h;
	bool clean = true;

	handshake_init(&h, GIB, false);
	is_int(feed(&h, text, strlen(text), 1), HANDSHAKE_REFUSED, "hostile text is refused");
	for (const char *c = h.reason; *c != '\0'; c++)
		clean &= *c >= 0x20 && *c <= 0x7e;
	ok(clean && h.reason[0] != '\0', "its reason is printable: %s", h.reason);
	handshake_fini(&h);
}

static void
test_later(void)
{
	static const char text[] = "[" BARE("65536", "4096", "0") "]";
	struct handshake h;
	int fd = some_fd();

	handshake_init(&h, GIB, false);
	handshake_feed(&h, text, strlen(text), &fd, 1);
	is_int(handshake_feed(&h, " \n", 2, NULL, 0), HANDSHAKE_DONE, "whitespace later is fine");
	is_int(handshake_feed(&h, "[", 1, NULL, 0), HANDSHAKE_REFUSED, "data later is not");
	is_int(h.fds[0], -1, "the descriptor is closed");
	fd = some_fd();
	is_int(handshake_feed(&h, " ", 1, &fd, 1), HANDSHAKE_REFUSED, "refused stays refused");
	is_int(fd, -1, "a descriptor that comes then is closed");
	handshake_fini(&h);
	handshake_fini(&h);
}

int
main(void)
{
	int fds = fd_count();

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		check_text(&texts[i]);
	test_values();
	test_validate();
	test_truncated();
	test_counts();
	test_limits();
	test_reason_is_clean();
	test_later();
	is_int(fd_count(), fds, "no descriptor is left over");
	return done();
}
