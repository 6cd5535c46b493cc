/* A table-driven state machine. */
#include "base/sm.h"

#include "base/log.h"

void sm_init(struct sm *m, const struct sm_state *table, unsigned n_states, unsigned initial)
{
	ASSERT(n_states > 0 && n_states <= 64 && initial < n_states);
	*m = (struct sm){.table = table, .n_states = n_states, .state = initial};
}

bool sm_may(const struct sm *m, unsigned next)
{
	return next < m->n_states && (m->table[m->state].next & SM_BIT(next));
}

void sm_move(struct sm *m, unsigned next)
{
	bool move_is_in_table = sm_may(m, next);
	if (!move_is_in_table)
		log_error("impossible state change from=%s to=%s", sm_name(m),
		    next < m->n_states ? m->table[next].name : "?");
	ASSERT(move_is_in_table);
	m->state = next;
}

const char *sm_name(const struct sm *m)
{
	return m->table[m->state].name;
}
