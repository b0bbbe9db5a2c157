/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/num.h"
#include "tests/vmm/vmm.h"

static struct vmm vmm = {
    .memory = {.memfd = -1, .uffd = -1, .socket = -1},
    .kvm_vm_fd = -1,
    .done_fd = -1,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .job_posted = PTHREAD_COND_INITIALIZER,
};

static const char usage_text[] =
    "usage: vmm BACKING --seed N --size BYTES[K|M|G] [options]\n"
    "BACKING is one of\n"
    "  --socket PATH          a pager that listens there\n"
    "  --private-pager IMAGE  a bare fault loop in a process of its own\n"
    "  --file IMAGE           the image mapped MAP_PRIVATE, no pager\n"
    "  --anon                 plain zero memory, no pager\n"
    "options\n"
    "  --holes PERMILLE --zeros PERMILLE   as given to mkimage\n"
    "  --regions 1|2          2: around the gap below 4 GiB\n"
    "  --vcpus N\n"
    "  --engine kvm|threads|auto\n"
    "  --handshake new|old4|old3|wrapped|split1\n"
    "  --uffd-flags WORD,...  no-remove, blocking, user-mode, syscall,\n"
    "                         wp-async, wp-unpopulated\n"
    "  --hugepages 2M\n"
    "  --track 1              register for write protection, too\n"
    "  --memfd 1              memory is a shared memfd; the handshake brings it\n"
    "  --bare-populate BYTES  private pager: fill everything first, in such chunks\n"
    "A command a line on stdin, an answer a line on stdout, \"ok KEY=VALUE ...\" or \"error ...\"\n"
    "  touch ORDER [count=N] [seed=S] [vcpu=all|N] [noverify] [each]\n"
    "                         read pages, timed; each: every vCPU reads every page\n"
    "  write ORDER [count=N] [seed=S] [vcpu=all|N]\n"
    "  verify                 every word of every page\n"
    "  start ORDER [seed=S] [write] [noverify] [period=US [burst=N]] [stalls=US]\n"
    "                         until stop; period: N pages each period, then rest\n"
    "  stop\n"
    "  pulse                  answered when every vCPU has begun and ended a visit\n"
    "  lap                    the times since the last lap\n"
    "  stalls                 touches of at least stalls= since the last time: END:US,...\n"
    "                         END in us of the monotonic clock\n"
    "  discard START COUNT [touch] | discard rand count=N [seed=S] [touch]\n"
    "                         in pages of 4 KiB; touch: and read one byte of each range\n"
    "  rss | status | wait | quit\n"
    "ORDER is seq, rand or stride:N.\n";

struct word_value {
	const char *word;
	int value;
};

static const struct word_value engine_words[] = {
    {"auto", ENGINE_AUTO}, {"kvm", ENGINE_KVM}, {"threads", ENGINE_THREADS}, {NULL, 0}};
static const char *const backing_names[] = {"socket", "private-pager", "file", "anon"};
static const struct word_value handshake_words[] = {{"new", HANDSHAKE_NEW},
    {"old4", HANDSHAKE_OLD4}, {"old3", HANDSHAKE_OLD3}, {"wrapped", HANDSHAKE_WRAPPED},
    {"split1", HANDSHAKE_SPLIT1}, {NULL, 0}};
static const struct word_value uffd_words[] = {{"no-remove", UFFD_F_NO_REMOVE},
    {"blocking", UFFD_F_BLOCKING}, {"user-mode", UFFD_F_USER_MODE}, {"syscall", UFFD_F_SYSCALL},
    {"wp-async", UFFD_F_WP_ASYNC}, {"wp-unpopulated", UFFD_F_WP_UNPOPULATED}, {NULL, 0}};
static const struct word_value hugepage_words[] = {{"2M", 1}, {NULL, 0}};
static const struct word_value flag_words[] = {{"0", 0}, {"1", 1}, {NULL, 0}};

/* The value of a word, or -EINVAL. */
static int
word_value(const struct word_value *table, const char *word)
{
	for (; table->word != NULL; table++) {
		if (strcmp(table->word, word) == 0)
			return table->value;
	}
	return -EINVAL;
}

static int
parse_uffd_flags(char *words, uint32_t *ret)
{
	char *save = NULL;
	char *word;

	for (word = strtok_r(words, ",", &save); word != NULL; word = strtok_r(NULL, ",", &save)) {
		int value = word_value(uffd_words, word);

		if (value < 0)
			return value;
		*ret |= (uint32_t)value;
	}
	return 0;
}

static int
set_backing(struct vmm_options *o, enum vmm_backing backing, const char *path)
{
	o->backing = backing;
	o->path = path;
	return 0;
}

static int
set_word(const struct word_value *table, const char *word, int *ret)
{
	int value = word_value(table, word);

	if (value >= 0)
		*ret = value;
	return value < 0 ? value : 0;
}

static int
set_option(struct vmm_options *o, int option, char *value)
{
	int word = 0;
	int err;

	switch (option) {
	case 's':
		return set_backing(o, BACKING_SOCKET, value);
	case 'p':
		return set_backing(o, BACKING_PRIVATE_PAGER, value);
	case 'f':
		return set_backing(o, BACKING_FILE, value);
	case 'a':
		return set_backing(o, BACKING_ANON, "");
	case 'n':
		return num_parse_u64(value, 0, UINT64_MAX, &o->pattern.seed);
	case 'b':
		return num_parse_bytes(value, VMM_PAGE_BYTES, UINT64_C(1) << 36, &o->size_bytes);
	case 'h':
		return num_parse_u64(value, 0, 1000, &o->pattern.holes_permille);
	case 'z':
		return num_parse_u64(value, 0, 1000, &o->pattern.zeros_permille);
	case 'r':
		return num_parse_u64(value, 1, GUEST_MAX_REGIONS, &o->nr_regions);
	case 'v':
		return num_parse_u64(value, 1, VMM_MAX_VCPUS, &o->nr_vcpus);
	case 'u':
		return parse_uffd_flags(value, &o->uffd_flags);
	case 'c':
		return num_parse_bytes(
		    value, VMM_PAGE_BYTES, UINT64_C(1) << 36, &o->populate_bytes);
	case 'e':
		err = set_word(engine_words, value, &word);
		o->engine = (enum vmm_engine)word;
		return err;
	case 'k':
		err = set_word(handshake_words, value, &word);
		o->handshake = (enum vmm_handshake)word;
		return err;
	case 'g':
		err = set_word(hugepage_words, value, &word);
		o->hugepages = word == 1;
		return err;
	case 't':
		err = set_word(flag_words, value, &word);
		o->is_tracked = word == 1;
		return err;
	case 'm':
		err = set_word(flag_words, value, &word);
		o->is_memfd = word == 1;
		return err;
	default:
		return -EINVAL;
	}
}

static const struct option long_options[] = {
    {"socket", required_argument, NULL, 's'},
    {"private-pager", required_argument, NULL, 'p'},
    {"file", required_argument, NULL, 'f'},
    {"anon", no_argument, NULL, 'a'},
    {"seed", required_argument, NULL, 'n'},
    {"size", required_argument, NULL, 'b'},
    {"holes", required_argument, NULL, 'h'},
    {"zeros", required_argument, NULL, 'z'},
    {"regions", required_argument, NULL, 'r'},
    {"vcpus", required_argument, NULL, 'v'},
    {"engine", required_argument, NULL, 'e'},
    {"handshake", required_argument, NULL, 'k'},
    {"uffd-flags", required_argument, NULL, 'u'},
    {"hugepages", required_argument, NULL, 'g'},
    {"bare-populate", required_argument, NULL, 'c'},
    {"track", required_argument, NULL, 't'},
    {"memfd", required_argument, NULL, 'm'},
    {NULL, 0, NULL, 0},
};

/* What is wrong with the options together, or NULL. */
static const char *
options_problem(const struct vmm_options *o)
{
	uint64_t page_bytes = o->hugepages ? VMM_HUGEPAGE_BYTES : VMM_PAGE_BYTES;

	if (o->path == NULL)
		return "no --socket, --private-pager, --file or --anon";
	if (o->size_bytes == 0)
		return "no --size";
	if (o->size_bytes % page_bytes != 0 || o->populate_bytes % page_bytes != 0)
		return "a size is not a multiple of the page size";
	if (o->size_bytes / page_bytes < o->nr_regions)
		return "--size has fewer pages than regions";
	if (o->pattern.holes_permille + o->pattern.zeros_permille > 1000)
		return "--holes and --zeros are more than 1000 permille together";
	if (o->populate_bytes > 0 && o->backing != BACKING_PRIVATE_PAGER)
		return "--bare-populate is for --private-pager";
	if (o->is_memfd && (o->hugepages || o->backing != BACKING_SOCKET))
		return "--memfd is for --socket and small pages";
	if (o->hugepages && o->backing == BACKING_FILE)
		return "--hugepages is not for --file";
	return NULL;
}

static int
parse_options(struct vmm_options *o, int argc, char **argv)
{
	const char *problem;
	int index = 0;
	int option;

	o->nr_regions = 1;
	o->nr_vcpus = 1;
	while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (option == '?') {
			fputs(usage_text, stderr);
			return -EINVAL;
		}
		if (set_option(o, option, optarg) < 0) {
			fprintf(stderr, "vmm: --%s: cannot use '%s'\n", long_options[index].name,
			    optarg);
			return -EINVAL;
		}
	}
	problem = optind < argc ? "an argument without an option" : options_problem(o);
	if (problem != NULL) {
		fprintf(stderr, "vmm: %s\n%s", problem, usage_text);
		return -EINVAL;
	}
	return 0;
}

/* Waits for jobs that touch no guest memory, so only at the start. */
static int
run_warm_up(void)
{
	uint64_t events;
	uint32_t i;

	vcpus_post(&vmm, 0, (uint32_t)vmm.options.nr_vcpus);
	do {
		struct pollfd pfd = {.fd = vmm.done_fd, .events = POLLIN};

		if (poll(&pfd, 1, -1) < 0 || read(vmm.done_fd, &events, sizeof(events)) < 0)
			continue;
	} while (vcpus_running(&vmm) > 0);
	for (i = 0; i < vmm.options.nr_vcpus; i++) {
		if (vmm.vcpus[i].error < 0)
			return vmm.vcpus[i].error;
	}
	return 0;
}

static int
start_kvm(void)
{
	uint32_t i;
	int err;

	vmm.is_kvm = true;
	err = scratch_init(&vmm);
	if (err == 0)
		err = kvm_init(&vmm);
	for (i = 0; i < vmm.options.nr_vcpus && err == 0; i++)
		err = kvm_vcpu_init(&vmm.vcpus[i]);
	return err == 0 ? run_warm_up() : err;
}

static int
start_threads(void)
{
	int err;

	vmm.is_kvm = false;
	err = scratch_init(&vmm);
	return err == 0 ? run_warm_up() : err;
}

static int
start_engine(void)
{
	uint32_t i;
	int err;

	vmm.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vmm.done_fd < 0)
		return -errno;
	for (i = 0; i < vmm.options.nr_vcpus; i++) {
		vmm.vcpus[i].vmm = &vmm;
		vmm.vcpus[i].index = i;
		vmm.vcpus[i].kvm_fd = -1;
	}
	err = vcpus_start(&vmm);
	if (err == 0)
		err = balloon_start(&vmm);
	if (err < 0 || vmm.options.engine == ENGINE_THREADS)
		return err < 0 ? err : start_threads();
	err = start_kvm();
	if (err < 0 && vmm.options.engine == ENGINE_AUTO) {
		fprintf(stderr, "vmm: no KVM (%s); threads instead\n", strerror(-err));
		err = start_threads();
	}
	return err;
}

static int
start_memory(void)
{
	const struct vmm_options *o = &vmm.options;
	int err = memory_map(&vmm.memory, o);

	if (err < 0 || o->backing == BACKING_FILE || o->backing == BACKING_ANON)
		return err;
	err = memory_register(&vmm.memory, o);
	if (err < 0)
		return err;
	return o->backing == BACKING_SOCKET ? handshake_send(&vmm.memory, o)
					    : pager_start(&vmm.memory, o);
}

static void
print_ready(void)
{
	printf("ready engine=%s backing=%s regions=%" PRIu32 " vcpus=%" PRIu64 " pages=%" PRIu64
	       " page_size=%" PRIu64 " pid=%d",
	    vmm.is_kvm ? "kvm" : "threads", backing_names[vmm.options.backing],
	    vmm.memory.nr_regions, vmm.options.nr_vcpus, vmm.memory.nr_pages, vmm.memory.page_bytes,
	    (int)getpid());
	if (vmm.memory.pager > 0)
		printf(" pager_pid=%d", (int)vmm.memory.pager);
	if (vmm.memory.populate_ns > 0)
		printf(" populate_us=%.1f populate_mib_s=%.1f",
		    (double)vmm.memory.populate_ns / 1000.0,
		    (double)vmm.options.size_bytes / 1048576.0 /
			((double)vmm.memory.populate_ns / (double)NS_PER_S));
	putchar('\n');
	fflush(stdout);
}

/* Commands that were read and have not run yet. */
static struct {
	char bytes[VMM_MAX_LINE];
	size_t used;
	bool is_at_end;
} input;

/* Up to the first line that must wait. */
static void
run_lines(void)
{
	char *end;

	while ((end = strchr(input.bytes, '\n')) != NULL) {
		*end = '\0';
		if (!command_line(&vmm, input.bytes)) {
			*end = '\n';
			return;
		}
		input.used -= (size_t)(end + 1 - input.bytes);
		memmove(input.bytes, end + 1, input.used + 1);
	}
}

static void
read_input(void)
{
	ssize_t n =
	    read(STDIN_FILENO, input.bytes + input.used, sizeof(input.bytes) - 1 - input.used);

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0)
		input.used += (size_t)n;
	else
		input.is_at_end = true;
	input.bytes[input.used] = '\0';
}

/* Ends with the input, but not before the lines that are held back. */
static void
serve_commands(void)
{
	while (!input.is_at_end || strchr(input.bytes, '\n') != NULL) {
		bool has_room = !input.is_at_end && input.used < sizeof(input.bytes) - 1;
		struct pollfd fds[2] = {
		    {.fd = has_room ? STDIN_FILENO : -1, .events = POLLIN},
		    {.fd = vmm.done_fd, .events = POLLIN},
		};
		uint64_t events;
		int n;

		if (!has_room && !input.is_at_end && strchr(input.bytes, '\n') == NULL)
			return; /* a line without end */
		n = poll(fds, 2, command_timeout());
		if (n < 0)
			continue;
		if (n == 0 ||
		    (fds[1].revents != 0 && read(vmm.done_fd, &events, sizeof(events)) > 0))
			command_done(&vmm);
		if (fds[0].revents != 0)
			read_input();
		run_lines();
	}
}

int
main(int argc, char **argv)
{
	int err;

	vmm_read_clocks(&vmm.clock_cycles, &vmm.clock_ns);
	if (parse_options(&vmm.options, argc, argv) < 0)
		return EXITCODE_USAGE;
	err = start_memory();
	if (err < 0) {
		fprintf(stderr, "vmm: guest memory: %s\n", strerror(-err));
		_exit(EXITCODE_FAILED);
	}
	err = start_engine();
	if (err < 0) {
		fprintf(stderr, "vmm: engine: %s\n", strerror(-err));
		_exit(EXITCODE_FAILED);
	}
	print_ready();
	serve_commands();
	_exit(EXITCODE_OK);
}
