/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/hotcache.h"

#include <stdlib.h>
#include <string.h>

#include "common/scope.h"
#include "common/xalloc.h"

struct entry {
	unsigned char *bytes; /* owned: the file's; NULL: there is no entry */
	size_t nr_bytes;
	struct hotlist list;
	uint64_t used; /* the larger, the later */
};

struct hotcache {
	struct entry entries[HOTCACHE_LISTS];
	uint64_t clock;
	unsigned misses;
};

static void
drop(struct entry *entry)
{
	hotlist_fini(&entry->list);
	free(entry->bytes);
	*entry = (struct entry){0};
}

static struct entry *
find(struct hotcache *cache, const unsigned char *bytes, size_t nr_bytes)
{
	for (size_t i = 0; i < HOTCACHE_LISTS; i++) {
		struct entry *entry = &cache->entries[i];

		if (entry->bytes != NULL && entry->nr_bytes == nr_bytes &&
		    memcmp(entry->bytes, bytes, nr_bytes) == 0)
			return entry;
	}
	return NULL;
}

/* The one that was not asked for the longest; a free one before all. */
static struct entry *
oldest(struct hotcache *cache)
{
	struct entry *found = &cache->entries[0];

	for (size_t i = 1; i < HOTCACHE_LISTS; i++)
		if (cache->entries[i].used < found->used)
			found = &cache->entries[i];
	return found;
}

static size_t
size_of(const struct entry *entry)
{
	return entry->nr_bytes + entry->list.room * sizeof(*entry->list.runs);
}

/* The newest stays, however large it is: the others go, from the oldest on. */
static void
keep_within(struct hotcache *cache, const struct entry *newest)
{
	for (;;) {
		struct entry *victim = NULL;
		size_t bytes = 0;

		for (size_t i = 0; i < HOTCACHE_LISTS; i++) {
			struct entry *entry = &cache->entries[i];

			bytes += entry == newest ? 0 : size_of(entry);
			if (entry != newest && entry->bytes != NULL &&
			    (victim == NULL || entry->used < victim->used))
				victim = entry;
		}
		if (bytes <= HOTCACHE_BYTES || victim == NULL)
			return;
		drop(victim);
	}
}

static int
add(struct hotcache *cache, unsigned char **bytes, size_t nr_bytes, uint32_t most,
    struct entry **ret, const char **ret_why)
{
	struct hotlist list;
	int r = hotlist_decode(&list, *bytes, nr_bytes, ret_why);

	cache->misses++;
	if (r < 0)
		return r;
	/* Without memory they come one by one. */
	(void)hotlist_coalesce(&list, most);
	*ret = oldest(cache);
	drop(*ret);
	**ret = (struct entry){.bytes = *bytes, .nr_bytes = nr_bytes, .list = list};
	*bytes = NULL;
	return 0;
}

int
hotcache_get(struct hotcache **ret_cache, int fd, uint32_t most, const struct hotlist **ret,
    const char **ret_why)
{
	struct hotcache *cache = *ret_cache != NULL ? *ret_cache : xcalloc(1, sizeof(*cache));
	scoped_free unsigned char *bytes = NULL;
	struct entry *entry;
	size_t nr_bytes = 0;
	int r;

	*ret_cache = cache;
	r = hotlist_read(fd, &bytes, &nr_bytes, ret_why);
	if (r < 0)
		return r;
	entry = find(cache, bytes, nr_bytes);
	if (entry == NULL)
		r = add(cache, &bytes, nr_bytes, most, &entry, ret_why);
	if (r < 0)
		return r;
	entry->used = ++cache->clock;
	keep_within(cache, entry);
	*ret = &entry->list;
	return 0;
}

void
hotcache_free(struct hotcache *cache)
{
	if (cache == NULL)
		return;
	for (size_t i = 0; i < HOTCACHE_LISTS; i++)
		drop(&cache->entries[i]);
	free(cache);
}

unsigned
hotcache_misses(const struct hotcache *cache)
{
	return cache != NULL ? cache->misses : 0;
}
