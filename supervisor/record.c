/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/json.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/statefile.h"
#include "supervisor/supervisor.h"

#define LAYOUT		 1U
#define MAX_RECORD_BYTES (1U << 20) /* a path for each of the overlays */
#define MAX_PATH_BYTES	 4096U

/* What is appended to the name of a record that cannot be read. */
#define DAMAGED ".damaged"

struct records {
	int dir;       /* owned; RUN/state */
	char boot[64]; /* the boot that we live in; empty: unknown */
};

/* --- Files ----------------------------------------------------------------------- */

static void
read_boot(struct records *records)
{
	scoped_fd int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, records->boot, sizeof(records->boot) - 1);

	records->boot[n < 0 ? 0 : n] = '\0';
	records->boot[strcspn(records->boot, "\n")] = '\0';
}

int
record_open(struct supervisor *sup)
{
	scoped_fd int dir = -1;
	int r = statefile_open_dir(sup->run_dir, "state", &dir);

	if (r < 0) {
		log_err("records: %s/state: %s", sup->options.run_dir, strerror(-r));
		return r;
	}
	sup->records = xcalloc(1, sizeof(*sup->records));
	sup->records->dir = fd_take(&dir);
	read_boot(sup->records);
	return 0;
}

void
record_close(struct supervisor *sup)
{
	if (sup->records == NULL)
		return;
	fd_closep(&sup->records->dir);
	free(sup->records);
	sup->records = NULL;
}

/* --- Out ------------------------------------------------------------------------- */

static void
record_name(uint64_t number, char name[32])
{
	snprintf(name, 32, "%" PRIu64 ".json", number);
}

static void
put_image(json_t *json, const struct session *session)
{
	const struct image *image = &session->image;
	char file[40]; /* JSON's integers are too small for these two */

	json_put_text(json, "image", session->image_path);
	json_put_u64(json, "image_bytes", image->bytes);
	snprintf(file, sizeof(file), "%" PRIx64 ":%" PRIx64, image->dev, image->ino);
	json_put_text(json, "image_file", file);
	json_put_u64(json, "image_mtime_ns", image->mtime_ns < 0 ? 0 : (uint64_t)image->mtime_ns);
	json_put_u64(json, "image_ctime_ns", image->ctime_ns < 0 ? 0 : (uint64_t)image->ctime_ns);
}

static void
put_life(json_t *json, const struct session *session)
{
	json_put_text(json, "version", session->version);
	json_put_u64(json, "adoptions", session->adoptions);
	json_put_u64(json, "created_ns", session->created_ns);
	json_put_u64(json, "serving_ns", session->serving_ns);
	if (session->vmm_pid > 0)
		json_put_u64(json, "vmm_pid", (uint64_t)session->vmm_pid);
	if (session->outcome == SESSION_OUTCOME_NONE)
		return;
	json_put_u64(json, "outcome", session->outcome);
	json_put_text(json, "reason", session->reason);
}

static json_t *
to_json(const struct session *session)
{
	json_t *json = json_object();

	json_put_u64(json, "layout", LAYOUT);
	json_put_text(json, "boot", session->sup->records->boot);
	json_put_u64(json, "number", session->number);
	json_put_text(json, "id", session->id);
	if (session->instance[0] != '\0')
		json_put_text(json, "instance", session->instance);
	json_put_text(json, "cache_key", session->cache_key);
	if (session->template[0] != '\0')
		json_put_text(json, "template", session->template);
	if (session->is_unrecorded)
		json_put_flag(json, "unrecorded", true);
	if (session->wanted[0] != '\0')
		json_put_text(json, "wanted", session->wanted);
	put_image(json, session);
	json_put_text(json, "socket", session->socket_path);
	json_put_u64(json, "vmm_uid", session->vmm_uid);
	json_put_u64(json, "vmm_gid", session->vmm_gid);
	json_put_u64(json, "flags", session->flags);
	json_put_u64(json, "cluster_min_bytes", session->cluster_min_bytes);
	json_put_u64(json, "cluster_max_bytes", session->cluster_max_bytes);
	json_put_u64(json, "handshake_timeout_ms", session->handshake_timeout_ms);
	if (session->overlays.nr > 0) {
		json_put(json, "overlays", overlays_json(&session->overlays));
		overlays_put_file(json, "overlays_file", &session->overlays);
	}
	recording_put(json, session);
	prefetch_put(json, session);
	put_life(json, session);
	return json;
}

void
record_save(const struct session *session)
{
	const struct records *records = session->sup->records;
	char name[32];
	int r = -ENOMEM;

	if (records == NULL)
		return;
	json_t *json = to_json(session);
	scoped_free char *text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	record_name(session->number, name);
	if (text != NULL)
		r = statefile_replace(records->dir, name, text);
	if (r < 0)
		session_log(session, LOG_LEVEL_ERR,
		    "its record cannot be written: %s; a restart of pagerd would not find it",
		    strerror(-r));
}

void
record_remove(const struct session *session)
{
	const struct records *records = session->sup->records;
	char name[32];

	if (records == NULL)
		return;
	record_name(session->number, name);
	if (unlinkat(records->dir, name, 0) < 0 && errno != ENOENT)
		session_log(session, LOG_LEVEL_WARNING, "its record cannot be removed: %s",
		    strerror(errno));
}

/* --- In -------------------------------------------------------------------------- */

struct parsed {
	const char *boot, *id, *instance, *cache_key, *wanted, *image, *file, *socket, *version;
	const char *reason, *overlays_file, *template, *record_path, *prefetch_list;
	const json_t *overlays, *record_groups;
	uint64_t layout, number, bytes, mtime_ns, ctime_ns, uid, gid, flags;
	uint64_t cluster_min, cluster_max, timeout_ms, adoptions, created_ns, serving_ns, vmm_pid;
	uint64_t outcome, record_uid, record_gid, prefetch_mode, prefetch_pages, prefetch_sample;
	bool is_unrecorded;
};

#define TEXT(name, member, required, min, max)                                            \
	{                                                                                 \
		name, JSON_KIND_TEXT, required, offsetof(struct parsed, member), min, max \
	}
#define U64(name, member, required, min, max)                                            \
	{                                                                                \
		name, JSON_KIND_U64, required, offsetof(struct parsed, member), min, max \
	}

#define FLAG(name, member)                                                         \
	{                                                                          \
		name, JSON_KIND_FLAG, false, offsetof(struct parsed, member), 0, 0 \
	}

#define LIST(name, member, required, min, max)                                            \
	{                                                                                 \
		name, JSON_KIND_LIST, required, offsetof(struct parsed, member), min, max \
	}

static const struct json_member members[] = {
    U64("layout", layout, true, LAYOUT, LAYOUT),
    TEXT("boot", boot, true, 0, 63),
    U64("number", number, true, 1, INT64_MAX - 1),
    TEXT("id", id, true, 1, SESSION_ID_BYTES - 1),
    TEXT("instance", instance, false, 1, SESSION_ID_BYTES - 1),
    TEXT("cache_key", cache_key, true, 1, SESSION_ID_BYTES - 1),
    TEXT("template", template, false, 1, TEMPLATE_NAME_BYTES - 1),
    FLAG("unrecorded", is_unrecorded),
    TEXT("wanted", wanted, false, 1, VERSION_BYTES - 1),
    TEXT("image", image, true, 1, MAX_PATH_BYTES),
    U64("image_bytes", bytes, true, 1, PAGEMAP_MAX_PAGES *PAGE_BYTES),
    TEXT("image_file", file, true, 3, 33),
    U64("image_mtime_ns", mtime_ns, true, 0, INT64_MAX),
    U64("image_ctime_ns", ctime_ns, true, 0, INT64_MAX),
    TEXT("socket", socket, true, 1, sizeof(((struct session *)NULL)->socket_path) - 1),
    U64("vmm_uid", uid, true, 0, UINT32_MAX - 1),
    U64("vmm_gid", gid, true, 0, UINT32_MAX - 1),
    U64("flags", flags, true, 0, UINT32_MAX),
    U64("cluster_min_bytes", cluster_min, true, 4096, 2097152),
    U64("cluster_max_bytes", cluster_max, true, 4096, 2097152),
    U64("handshake_timeout_ms", timeout_ms, true, 1, INT64_MAX),
    LIST("overlays", overlays, false, 1, OVERLAY_MAX),
    TEXT("overlays_file", overlays_file, false, 3, 33),
    TEXT("record_path", record_path, false, 1, MAX_PATH_BYTES),
    U64("record_uid", record_uid, false, 0, UINT32_MAX - 1),
    U64("record_gid", record_gid, false, 0, UINT32_MAX - 1),
    LIST("record_groups", record_groups, false, 0, PEER_MAX_GROUPS),
    U64("prefetch_mode", prefetch_mode, false, PREFETCH_ON, PREFETCH_SEQUENTIAL),
    U64("prefetch_pages", prefetch_pages, false, 1, PAGEMAP_MAX_PAGES),
    U64("prefetch_sample", prefetch_sample, false, 0, PREFETCH_SAMPLE),
    TEXT("prefetch_list", prefetch_list, false, 1, MAX_PATH_BYTES),
    TEXT("version", version, true, 1, VERSION_BYTES - 1),
    U64("adoptions", adoptions, true, 0, UINT32_MAX),
    U64("created_ns", created_ns, true, 1, INT64_MAX),
    U64("serving_ns", serving_ns, true, 0, INT64_MAX),
    U64("vmm_pid", vmm_pid, false, 1, INT32_MAX),
    U64("outcome", outcome, false, 1, SESSION_OUTCOME_FAILED),
    TEXT("reason", reason, false, 0, sizeof(((struct session *)NULL)->reason) - 1),
};

#define COPY(field, text) snprintf((field), sizeof(field), "%s", (text) != NULL ? (text) : "")

static bool
read_identity(const char *text, struct image *image)
{
	int end = 0;

	return sscanf(text, "%" SCNx64 ":%" SCNx64 "%n", &image->dev, &image->ino, &end) == 2 &&
	    text[end] == '\0';
}

static void
fill_life(struct session *session, const struct parsed *p)
{
	COPY(session->version, p->version);
	session->adoptions = (uint32_t)p->adoptions;
	session->created_ns = p->created_ns;
	session->serving_ns = p->serving_ns;
	session->vmm_pid = p->vmm_pid > 0 ? (pid_t)p->vmm_pid : -1;
	session->outcome = (enum session_outcome)p->outcome;
	COPY(session->reason, p->reason);
}

static void
fill(struct session *session, const struct parsed *p)
{
	session->state = SESSION_RECOVERING;
	session->number = p->number;
	COPY(session->id, p->id);
	COPY(session->instance, p->instance);
	COPY(session->cache_key, p->cache_key);
	COPY(session->template, p->template);
	session->is_unrecorded = p->is_unrecorded;
	COPY(session->wanted, p->wanted);
	COPY(session->socket_path, p->socket);
	session->image_path = xstrdup(p->image);
	session->image.bytes = p->bytes;
	session->image.mtime_ns = (int64_t)p->mtime_ns;
	session->image.ctime_ns = (int64_t)p->ctime_ns;
	session->vmm_uid = (uid_t)p->uid;
	session->vmm_gid = (gid_t)p->gid;
	session->flags = (uint32_t)p->flags;
	session->cluster_min_bytes = p->cluster_min;
	session->cluster_max_bytes = p->cluster_max;
	session->handshake_timeout_ms = p->timeout_ms;
	fill_life(session, p);
}

static int
check(const struct sessions *sessions, const struct parsed *p, uint64_t number, char *why,
    size_t why_bytes)
{
	const struct list *pos;
	struct image image;

	if (p->number != number) {
		snprintf(why, why_bytes, "it is of session %" PRIu64, p->number);
		return -EINVAL;
	}
	if (!version_is_valid(p->version) || (p->wanted != NULL && !version_is_valid(p->wanted))) {
		snprintf(why, why_bytes, "\"version\" or \"wanted\" is no version");
		return -EINVAL;
	}
	if ((p->flags & ~(uint64_t)IPC_SESSION_FLAGS) != 0) {
		snprintf(why, why_bytes, "\"flags\" are not all known");
		return -EINVAL;
	}
	if (!read_identity(p->file, &image)) {
		snprintf(why, why_bytes, "\"image_file\" is no device and inode");
		return -EINVAL;
	}
	list_for_each(pos, &sessions->all) {
		const struct session *other = list_entry(pos, const struct session, link);

		if (strcmp(other->id, p->id) != 0)
			continue;
		snprintf(why, why_bytes, "session %" PRIu64 " has the same id", other->number);
		return -EEXIST;
	}
	return 0;
}

static int
load_overlays(const struct parsed *p, struct overlays *ret, char *why, size_t why_bytes)
{
	if (((p->flags & IPC_SESSION_HAS_OVERLAYS) != 0) == (p->overlays != NULL))
		return overlays_load(p->overlays, p->overlays_file, ret, why, why_bytes);
	snprintf(why, why_bytes, "\"overlays\" and \"flags\" contradict each other");
	return -EINVAL;
}

/* What they are in, its worker hands over. */
static void
load_traces(struct session *session, const struct parsed *p)
{
	struct prefetch prefetch = {.mode = (enum prefetch_mode)p->prefetch_mode,
	    .pages = p->prefetch_pages,
	    .sample = p->prefetch_sample};

	if (p->record_path != NULL)
		recording_load(
		    session, p->record_path, p->record_uid, p->record_gid, p->record_groups);
	if (p->prefetch_mode == PREFETCH_UNSET)
		return;
	prefetch.path = p->prefetch_list != NULL ? xstrdup(p->prefetch_list) : NULL;
	prefetch_load(session, &prefetch);
}

/* 0; -ESTALE of another boot; another negative errno and a sentence. */
static int
load(struct supervisor *sup, const char *name, uint64_t number, char *why, size_t why_bytes)
{
	struct sessions *sessions = &sup->sessions;
	struct parsed parsed = {0};
	struct overlays overlays = {.fd = -1};
	scoped_free char *text = NULL;
	json_t *json = NULL;
	size_t bytes = 0;
	int r = statefile_read(sup->records->dir, name, MAX_RECORD_BYTES, &text, &bytes);

	if (r < 0) {
		snprintf(why, why_bytes, "%s", strerror(-r));
		return r;
	}
	r = json_parse_object(text, bytes, &json, why, why_bytes);
	if (r < 0)
		return r;
	r = json_read_members(
	    json, members, sizeof(members) / sizeof(members[0]), &parsed, why, why_bytes);
	if (r == 0 && strcmp(parsed.boot, sup->records->boot) != 0)
		r = -ESTALE;
	if (r == 0)
		r = check(sessions, &parsed, number, why, why_bytes);
	if (r == 0)
		r = load_overlays(&parsed, &overlays, why, why_bytes);
	if (r == 0) {
		struct session *session = session_new(sessions);

		if (session == NULL)
			fatal("records: out of memory");
		sessions->next_number--; /* it has a number already */
		fill(session, &parsed);
		session->overlays = overlays;
		load_traces(session, &parsed);
		read_identity(parsed.file, &session->image);
		sessions_insert(sessions, session);
	}
	json_decref(json);
	return r;
}

/* The number in NUMBER.json; 0: that is no record. */
static uint64_t
number_of(const char *name)
{
	char digits[32], again[32];
	const char *dot = strchr(name, '.');
	uint64_t number;

	if (dot == NULL || (size_t)(dot - name) >= sizeof(digits))
		return 0;
	snprintf(digits, sizeof(digits), "%.*s", (int)(dot - name), name);
	if (num_parse_u64(digits, 1, INT64_MAX - 1, &number) < 0)
		return 0;
	record_name(number, again);
	return strcmp(name, again) == 0 ? number : 0;
}

/* Even a record that cannot be read has taken its number. */
static void
load_one(struct supervisor *sup, const char *name, size_t *nr, size_t *nr_damaged)
{
	uint64_t number = number_of(name);
	char why[256] = "", aside[64];
	int r;

	if (number == 0) {
		if (name[0] != '.' && strcmp(name, "current") != 0 &&
		    strcmp(name, STATEFILE_NEW) != 0 && strstr(name, DAMAGED) == NULL)
			log_warning("records: state/%s: not ours; left alone", name);
		return;
	}
	if (sup->sessions.next_number <= number)
		sup->sessions.next_number = number + 1;
	r = load(sup, name, number, why, sizeof(why));
	if (r == 0) {
		(*nr)++;
	} else if (r == -ESTALE) {
		log_info("records: state/%s: of another boot; removed", name);
		unlinkat(sup->records->dir, name, 0);
	} else {
		log_err("records: state/%s: %s; session %" PRIu64
			" is known by what its worker says alone, if one has it",
		    name, why, number);
		snprintf(aside, sizeof(aside), "%s" DAMAGED, name);
		renameat(sup->records->dir, name, sup->records->dir, aside);
		(*nr_damaged)++;
	}
}

size_t
record_load_all(struct supervisor *sup, size_t *ret_damaged)
{
	scoped_fd int fd = openat(sup->records->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	size_t nr = 0;

	*ret_damaged = 0;
	if (dir == NULL) {
		log_err("records: cannot be listed: %s; no session is recovered", strerror(errno));
		return 0;
	}
	fd = -1; /* closedir() closes it */
	while ((entry = readdir(dir)) != NULL)
		load_one(sup, entry->d_name, &nr, ret_damaged);
	closedir(dir);
	return nr;
}

/* --- The current version --------------------------------------------------------- */

void
record_save_current(struct supervisor *sup, const char *version)
{
	char text[VERSION_BYTES + 1];
	int r;

	if (sup->records == NULL)
		return;
	snprintf(text, sizeof(text), "%s\n", version);
	r = statefile_replace(sup->records->dir, "current", text);
	if (r < 0)
		log_warning("records: state/current: %s; a restart would choose the newest version",
		    strerror(-r));
}

bool
record_load_current(struct supervisor *sup, char *version, size_t bytes)
{
	scoped_free char *text = NULL;
	size_t length;
	int r;

	if (sup->records == NULL)
		return false;
	r = statefile_read(sup->records->dir, "current", MAX_RECORD_BYTES, &text, &length);
	if (r == -ENOENT)
		return false;
	if (r == 0 && text != NULL)
		text[strcspn(text, "\n")] = '\0';
	if (r == 0 && text != NULL && version_is_valid(text) && strlen(text) < bytes) {
		snprintf(version, bytes, "%s", text);
		return true;
	}
	log_warning("records: state/current: %s; ignored", r < 0 ? strerror(-r) : "not a version");
	return false;
}
