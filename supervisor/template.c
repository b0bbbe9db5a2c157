/* SPDX-License-Identifier: Apache-2.0 */
/* The set of templates, and what is asked of it. */
#include "supervisor/template.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/xalloc.h"
#include "supervisor/image.h"
#include "supervisor/supervisor.h"
#include "supervisor/template_impl.h"
#include "supervisor/why.h"

/* --- One ------------------------------------------------------------------------- */

struct template *
template_new(const char *name)
{
	struct template *template = xcalloc(1, sizeof(*template));

	snprintf(template->name, sizeof(template->name), "%s", name);
	return template;
}

void
template_spec_fini(struct template_spec *spec)
{
	free(spec->image_path);
	free(spec->cache_key);
	free(spec->hot_list);
	*spec = (struct template_spec){0};
}

void
template_free(struct template *template)
{
	template_spec_fini(&template->spec);
	free(template);
}

static struct template_image
identity_of(const struct image *image)
{
	return (struct template_image){
	    image->bytes, image->ino, image->mtime_ns < 0 ? 0 : image->mtime_ns};
}

static bool
is_same_image(const struct template_image *a, const struct template_image *b)
{
	return a->bytes == b->bytes && a->ino == b->ino && a->mtime_ns == b->mtime_ns;
}

bool
template_name_is_valid(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t n = strlen(name);

	return n > 0 && n < TEMPLATE_NAME_BYTES && name[0] != '.' && strspn(name, allowed) == n;
}

/* --- The set --------------------------------------------------------------------- */

bool
templates_search(const struct templates *templates, const char *name, size_t *ret_at)
{
	size_t low = 0, high = templates->nr;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(templates->all[middle]->name, name);

		if (order == 0) {
			*ret_at = middle;
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_at = low;
	return false;
}

void
templates_insert(struct templates *templates, struct template *template)
{
	size_t at;

	templates_search(templates, template->name, &at);
	memmove(&templates->all[at + 1], &templates->all[at],
	    (templates->nr - at) * sizeof(templates->all[0]));
	templates->all[at] = template;
	templates->nr++;
}

void
templates_remove(struct templates *templates, const char *name)
{
	size_t at;

	if (!templates_search(templates, name, &at))
		return;
	template_free(templates->all[at]);
	templates->nr--;
	memmove(&templates->all[at], &templates->all[at + 1],
	    (templates->nr - at) * sizeof(templates->all[0]));
}

/* A reason to refuse everything, or 0. */
static int
check_available(const struct supervisor *sup, char *why, size_t why_bytes)
{
	if (sup->templates != NULL && sup->templates->dir >= 0)
		return 0;
	return why_set(why, why_bytes, -ENODEV, "there are no templates here: %s",
	    sup->templates != NULL ? sup->templates->why : "they are not kept");
}

struct template *const *
templates_all(const struct supervisor *sup, size_t *ret_nr, char *why, size_t why_bytes)
{
	*ret_nr = 0;
	if (check_available(sup, why, why_bytes) < 0)
		return NULL;
	*ret_nr = sup->templates->nr;
	return sup->templates->all;
}

static int
find(const struct supervisor *sup, const char *name, struct template **ret, char *why,
    size_t why_bytes)
{
	size_t at;
	int r = check_available(sup, why, why_bytes);

	*ret = NULL;
	if (r < 0)
		return r;
	if (!templates_search(sup->templates, name, &at))
		return why_set(why, why_bytes, -ENOENT,
		    "there is no template %s; the list of templates has those that there are",
		    name);
	*ret = sup->templates->all[at];
	return 0;
}

int
template_find(const struct supervisor *sup, const char *name, const struct template **ret,
    char *why, size_t why_bytes)
{
	struct template *found;
	int r = find(sup, name, &found, why, why_bytes);

	*ret = found;
	return r;
}

/* --- Forks ----------------------------------------------------------------------- */

/* What nobody remembers the creation of is a fork of every template that it could be of. */
static bool
may_be_fork(const struct session *session, const struct template *template)
{
	if (!session_is_live(session))
		return false;
	if (session->is_unrecorded)
		return session->image.ino == template->image.ino &&
		    session->image.bytes == template->image.bytes;
	return strcmp(session->template, template->name) == 0;
}

void
templates_count_forks(const struct supervisor *sup, size_t *ret)
{
	const struct templates *templates = sup->templates;
	const struct list *pos;
	size_t at;

	memset(ret, 0, templates->nr * sizeof(*ret));
	list_for_each(pos, &sup->sessions.all) {
		const struct session *session = list_entry(pos, const struct session, link);

		for (at = 0; session->is_unrecorded && at < templates->nr; at++)
			ret[at] += may_be_fork(session, templates->all[at]);
		if (!session->is_unrecorded && session->template[0] != '\0' &&
		    session_is_live(session) && templates_search(templates, session->template, &at))
			ret[at]++;
	}
}

size_t
template_forks(const struct supervisor *sup, const struct template *template,
    const struct session **ret, size_t max)
{
	const struct list *pos;
	size_t n = 0;

	list_for_each(pos, &sup->sessions.all) {
		const struct session *session = list_entry(pos, const struct session, link);

		if (!may_be_fork(session, template))
			continue;
		if (n < max)
			ret[n] = session;
		n++;
	}
	return n;
}

int
template_fork(
    const struct supervisor *sup, struct session_request *req, char *why, size_t why_bytes)
{
	const struct template *template;
	int r = template_find(sup, req->template, &template, why, why_bytes);

	if (r == 0)
		r = template_may(sup, template, TEMPLATE_EV_FORK, why, why_bytes);
	if (r < 0)
		return r;
	req->image_path = template->spec.image_path;
	req->cache_key = template->spec.cache_key;
	req->hot_list = template->spec.hot_list;
	if (req->prefetch == PREFETCH_UNSET)
		req->prefetch = template->spec.prefetch;
	if (!req->record_path)
		req->record_path = template->spec.hot_list;
	return 0;
}

const char *
template_hot_list(const struct session *session)
{
	const struct template *template;
	char why[256];

	if (session->template[0] == '\0' ||
	    template_find(session->sup, session->template, &template, why, sizeof(why)) < 0)
		return NULL;
	return template->spec.hot_list;
}

int
template_check_image(const struct supervisor *sup, const char *name, const struct image *image,
    char *why, size_t why_bytes)
{
	const struct template *template;
	int r = template_find(sup, name, &template, why, why_bytes);
	const char *what;

	if (r < 0)
		return r;
	const struct template_image *was = &template->image, is = identity_of(image);
	if (is_same_image(was, &is))
		return 0;
	if (is.ino != was->ino)
		what = "is another file";
	else if (is.bytes != was->bytes)
		what = "has another size";
	else
		what = "was written to";
	return why_set(why, why_bytes, -ESTALE,
	    "image %s of template %s %s since it was registered; once its forks have ended demote "
	    "it and register it again",
	    template->spec.image_path, name, what);
}

/* --- Making and changing --------------------------------------------------------- */

static int
check_request(const char *name, const struct template_request *req, char *why, size_t why_bytes)
{
	if (!template_name_is_valid(name))
		return why_set(why, why_bytes, -EINVAL,
		    "%.80s is no name for a template: 1 to %d letters, digits, dots, underscores "
		    "and minuses, no dot in front",
		    name, TEMPLATE_NAME_BYTES - 1);
	if (req->hot_list && req->hot_list[0] != '/')
		return why_set(
		    why, why_bytes, -EINVAL, "hot list %s is not absolute", req->hot_list);
	return 0;
}

/* What is asked for, with the identity of the image as it is now. */
static void
prepare(const struct template_request *req, const struct image *image, struct template *ret)
{
	ret->image = identity_of(image);
	ret->spec.image_path = xstrdup(req->image_path);
	ret->spec.hot_list = req->hot_list ? xstrdup(req->hot_list) : NULL;
	ret->spec.prefetch = req->prefetch;
	ret->spec.cache_key = req->cache_key ? xstrdup(req->cache_key) : NULL;
}

static bool
is_same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool
is_same(const struct template *a, const struct template *b)
{
	return is_same_image(&a->image, &b->image) && a->spec.prefetch == b->spec.prefetch &&
	    is_same_text(a->spec.image_path, b->spec.image_path) &&
	    is_same_text(a->spec.cache_key, b->spec.cache_key) &&
	    is_same_text(a->spec.hot_list, b->spec.hot_list);
}

/* Takes over what asked holds. */
static int
make(struct supervisor *sup, struct template *asked, char *why, size_t why_bytes)
{
	struct templates *templates = sup->templates;
	struct template *template;
	int r;

	if (templates->nr >= TEMPLATE_MAX)
		return why_set(why, why_bytes, -ENOSPC,
		    "there are %u templates, which is the limit; delete one", TEMPLATE_MAX);
	asked->state = TEMPLATE_REGISTERED;
	r = template_save(sup, asked);
	if (r < 0)
		return why_set(why, why_bytes, r,
		    "the record of template %s cannot be written in %s/templates: %s", asked->name,
		    sup->options.state_dir, strerror(-r));
	template = template_new(asked->name);
	*template = *asked;
	asked->spec = (struct template_spec){0};
	templates_insert(templates, template);
	log_notice("template %s: registered; image=%s bytes=%" PRIu64, template->name,
	    template->spec.image_path, template->image.bytes);
	return 0;
}

/* *ret: the one that there is; NULL: none, which is no error. */
static int
find_to_put(const struct supervisor *sup, const char *name, const struct template_request *req,
    struct template **ret, char *why, size_t why_bytes)
{
	int r = check_request(name, req, why, why_bytes);

	*ret = NULL;
	if (r == 0)
		r = find(sup, name, ret, why, why_bytes);
	if (r == -ENOENT)
		return 0;
	if (r == 0 && (*ret)->state == TEMPLATE_DAMAGED)
		return template_may(sup, *ret, TEMPLATE_EV_PUT, why, why_bytes);
	return r;
}

int
template_check(const struct supervisor *sup, const char *name, const struct template_request *req,
    char *why, size_t why_bytes)
{
	struct template *existing;

	return find_to_put(sup, name, req, &existing, why, why_bytes);
}

int
template_put(struct supervisor *sup, const char *name, const struct template_request *req,
    const struct image *image, bool *ret_made, char *why, size_t why_bytes)
{
	struct template *existing, asked = {.state = TEMPLATE_REGISTERED};
	int r = find_to_put(sup, name, req, &existing, why, why_bytes);

	*ret_made = r == 0 && existing == NULL;
	if (r < 0)
		return r;
	snprintf(asked.name, sizeof(asked.name), "%s", name);
	prepare(req, image, &asked);
	if (*ret_made)
		r = make(sup, &asked, why, why_bytes);
	else if (!is_same(existing, &asked))
		r = template_step(sup, existing, TEMPLATE_EV_PUT, &asked, why, why_bytes);
	template_spec_fini(&asked.spec);
	return r;
}

int
template_do(struct supervisor *sup, const char *name, enum template_event event,
    enum template_state *ret_state, char *why, size_t why_bytes)
{
	struct template *template;
	int r = find(sup, name, &template, why, why_bytes);

	if (template == NULL)
		return r;
	r = template_step(sup, template, event, NULL, why, why_bytes);
	if (r < 0)
		return r;
	*ret_state = template->state;
	if (template->state == TEMPLATE_REMOVED)
		templates_remove(sup->templates, template->name);
	return 0;
}
