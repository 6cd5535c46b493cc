/* Watches: who is told of each applied change, in order of registration.
 *
 * A watch may be freed, and another made, from inside a callback: a freed one is only marked while callbacks
 * run and goes when they are through; a new one hears from the next transaction on. */
#include "base/log.h"
#include "base/mem.h"
#include "manager/store/internal.h"

struct store_watch {
	struct watches *list; /* NULL: the store is gone */
	struct store_watch *prev, *next;
	store_watch_cb cb; /* NULL: freed */
	void *data;
};

struct store_watch *store_watch_new(struct store *s, store_watch_cb cb, void *data)
{
	struct watches *l = &s->watches;
	struct store_watch *w = NEW(struct store_watch);

	w->list = l;
	w->cb = cb;
	w->data = data;
	w->prev = l->last;
	if (l->last != NULL)
		l->last->next = w;
	else
		l->first = w;
	l->last = w;
	return w;
}

static void unlink_free(struct store_watch *w)
{
	struct watches *l = w->list;

	if (l != NULL) {
		*(w->prev != NULL ? &w->prev->next : &l->first) = w->next;
		*(w->next != NULL ? &w->next->prev : &l->last) = w->prev;
	}
	free(w);
}

void store_watch_free(struct store_watch *w)
{
	if (w == NULL)
		return;
	w->cb = NULL;
	if (w->list == NULL || !w->list->running)
		unlink_free(w);
}

void watches_dispatch(struct watches *l, const struct store_event *ev, size_t n)
{
	struct store_watch *last = l->last;

	if (last == NULL || n == 0)
		return;
	ASSERT(!l->running);
	l->running = true;
	for (struct store_watch *w = l->first;; w = w->next) {
		for (size_t i = 0; i < n && w->cb != NULL; i++)
			w->cb(w->data, &ev[i]);
		if (w == last)
			break;
	}
	l->running = false;
	for (struct store_watch *w = l->first, *next; w != NULL; w = next) {
		next = w->next;
		if (w->cb == NULL)
			unlink_free(w);
	}
}

void watches_done(struct watches *l)
{
	for (struct store_watch *w = l->first, *next; w != NULL; w = next) {
		next = w->next;
		w->list = NULL;
		w->prev = w->next = NULL;
	}
	l->first = l->last = NULL;
}
