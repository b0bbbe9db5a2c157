/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list.  A head is a struct list too.  Every link field
 * says in a comment which list it is on. */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev;
	struct list *next;
};

#define list_entry(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Safe against removal of the current entry, not of the next. */
#define list_for_each_safe(pos, tmp, head)                               \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
	     (pos) = (tmp), (tmp) = (pos)->next)

#define list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

static inline void
list_init(struct list *head)
{
	head->prev = head;
	head->next = head;
}

static inline bool
list_is_empty(const struct list *head)
{
	return head->next == head;
}

/* Appends: the order of a list is the order of arrival. */
static inline void
list_add(struct list *head, struct list *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

/* Safe on a link that list_init() made or that was removed already. */
static inline void
list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}

#endif
