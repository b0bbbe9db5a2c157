/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what the kernel can do, tried where it can be tried. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/doctor.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
#define LANDLOCK_ASK_VERSION 1U
#define FEATURE_WP	     (UINT64_C(1) << 0)
#define FEATURE_REMOVE	     (UINT64_C(1) << 3)
#define FEATURE_HUGE	     (UINT64_C(1) << 4)
#define FEATURE_POISON	     (UINT64_C(1) << 14)
#define KVM_VERSION	     12

/* As Firecracker makes one: the device first, the system call only where there is none. */
static int
new_uffd(void)
{
	scoped_fd int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd;

	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	else if (errno != ENOENT)
		return -errno;
	else
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static void
judge_features(struct doctor *d, uint64_t features)
{
	static const struct {
		uint64_t bit;
		enum doctor_result without;
		const char *name, *since, *what;
	} wanted[] = {
	    {FEATURE_REMOVE, DOCTOR_FAIL, "removal events", "4.11",
		"memory that a guest gives back could not be told from absent memory"},
	    {FEATURE_HUGE, DOCTOR_WARN, "huge pages", "4.11",
		"guests of 2 MiB pages cannot be served"},
	    {FEATURE_WP, DOCTOR_WARN, "write protection", "5.7",
		"written pages cannot be told apart"},
	    {FEATURE_POISON, DOCTOR_WARN, "poison", "6.6",
		"a page whose image cannot be read can only be held, or its VMM ended"},
	};
	bool complete = true;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		scoped_free char *remedy = xasprintf("run Linux %s or later", wanted[i].since);

		if (features & wanted[i].bit)
			continue;
		complete = false;
		doctor_say(d, "userfaultfd", wanted[i].without, remedy,
		    "the kernel's userfaultfd has no %s: %s", wanted[i].name, wanted[i].what);
	}
	if (complete)
		doctor_say(d, "userfaultfd", DOCTOR_OK, NULL,
		    "removal events, huge pages, write protection and poison");
}

static void
check_uffd(struct doctor *d)
{
	struct uffdio_api api = {.api = UFFD_API};
	scoped_fd int fd = new_uffd();

	if (fd == -ENOSYS) {
		doctor_say(d, "userfaultfd", DOCTOR_FAIL, "run a kernel with CONFIG_USERFAULTFD=y",
		    "the kernel has none");
		return;
	}
	if (fd == -EPERM || fd == -EACCES) {
		doctor_say(d, "userfaultfd", DOCTOR_WARN, "run pagerctl doctor as root",
		    "you may not make one, so that its features are not known");
		return;
	}
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0) {
		doctor_say(d, "userfaultfd", DOCTOR_FAIL, NULL, "cannot be made: %s",
		    strerror(fd < 0 ? -fd : errno));
		return;
	}
	judge_features(d, api.features);
}

/* Whether a system call is there: any error but one tells. */
static bool
has_call(long number)
{
	long fd = syscall(number, -1, NULL, NULL, 0);

	if (fd >= 0)
		close((int)fd);
	return fd >= 0 || errno != ENOSYS;
}

static void
check_sandbox(struct doctor *d)
{
	long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_ASK_VERSION);

	if (prctl(PR_GET_SECCOMP) < 0)
		doctor_say(d, "sandbox", DOCTOR_FAIL, "run a kernel with CONFIG_SECCOMP_FILTER=y",
		    "the kernel has no seccomp filters, without which no worker starts");
	else if (landlock < 1)
		doctor_say(d, "sandbox", DOCTOR_WARN,
		    "add landlock to the kernel's lsm= parameter (Linux 5.13 or later)",
		    "seccomp, but no Landlock: workers have one barrier less");
	else
		doctor_say(d, "sandbox", DOCTOR_OK, NULL, "seccomp, and Landlock %ld", landlock);
}

void
doctor_kernel(struct doctor *d)
{
	struct utsname name;

	if (uname(&name) == 0 && has_call(SYS_pidfd_getfd))
		doctor_say(d, "kernel", DOCTOR_OK, NULL, "%s %s %s", name.sysname, name.release,
		    name.machine);
	else
		doctor_say(
		    d, "kernel", DOCTOR_FAIL, "run Linux 5.6 or later", "it is too old for pagerd");
	check_uffd(d);
	check_sandbox(d);
}

static void
check_kvm(struct doctor *d)
{
	scoped_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version = fd < 0 ? -1 : ioctl(fd, KVM_GET_API_VERSION, 0);

	if (fd < 0 && errno == ENOENT)
		doctor_say(d, "kvm", DOCTOR_WARN,
		    "load kvm_intel or kvm_amd, and have virtualisation switched on in the "
		    "firmware, or nested virtualisation in the host",
		    "there is no /dev/kvm: pagerd works, but no Firecracker does");
	else if (fd < 0 && errno == EACCES)
		doctor_say(d, "kvm", DOCTOR_WARN, "run pagerctl doctor as root",
		    "you may not open /dev/kvm");
	else if (version != KVM_VERSION)
		doctor_say(
		    d, "kvm", DOCTOR_WARN, NULL, "/dev/kvm does not work: %s", strerror(errno));
	else
		doctor_say(d, "kvm", DOCTOR_OK, NULL, "/dev/kvm works");
}

/* The VMM makes the userfaultfd, with the rights that it has. */
static void
check_vmm_uffd(struct doctor *d)
{
	scoped_free char *remedy = xasprintf("setfacl -m u:%u:rw /dev/userfaultfd, and a udev rule "
					     "that keeps it so",
	    (unsigned)d->vmm_uid);
	int r = doctor_access(d, "/dev/userfaultfd", d->vmm_uid);
	uint64_t anybody = 0;

	doctor_read_number(d, "/proc/sys/vm/unprivileged_userfaultfd", &anybody);
	if (r == 0 || (r == -ENOENT && (anybody || d->vmm_uid == 0)))
		doctor_say(d, "vmm", DOCTOR_OK, NULL, "user %u may make a userfaultfd by %s",
		    (unsigned)d->vmm_uid, r == 0 ? "/dev/userfaultfd" : "the system call");
	else if (r == -EAGAIN)
		doctor_say(d, "vmm", DOCTOR_OK, NULL, "/dev/userfaultfd has an ACL for its users");
	else if (r == -ENOENT)
		doctor_say(d, "vmm", DOCTOR_FAIL, "sysctl vm.unprivileged_userfaultfd=1",
		    "user %u may not make a userfaultfd that serves the kernel's own accesses, "
		    "which a VM needs",
		    (unsigned)d->vmm_uid);
	else
		/* The system call is no way out: Firecracker uses it only without the device. */
		doctor_say(d, "vmm", DOCTOR_FAIL, remedy,
		    "user %u may not open /dev/userfaultfd, which its Firecracker must",
		    (unsigned)d->vmm_uid);
}

static void
check_vmm_kvm(struct doctor *d)
{
	scoped_free char *remedy = xasprintf(
	    "setfacl -m u:%u:rw /dev/kvm, or add it to the group kvm", (unsigned)d->vmm_uid);

	if (doctor_access(d, "/dev/kvm", d->vmm_uid) == -EACCES)
		doctor_say(d, "vmm", DOCTOR_FAIL, remedy, "user %u may not open /dev/kvm",
		    (unsigned)d->vmm_uid);
}

void
doctor_devices(struct doctor *d)
{
	check_kvm(d);
	check_vmm_uffd(d);
	check_vmm_kvm(d);
}
