/* A table-driven state machine: who may follow whom. The owner keeps the state and calls sm_move for
 * every change; a move that the table does not have is our bug and stops the process. */
#ifndef BASE_SM_H
#define BASE_SM_H

#include <stdint.h>
#include <stdbool.h>

struct sm_state {
	const char *name;
	uint64_t next; /* bit i set: state i may follow */
};
struct sm {
	const struct sm_state *table;
	unsigned n_states;
	unsigned state;
};
#define SM_BIT(state) (UINT64_C(1) << (state))
void sm_init(struct sm *m, const struct sm_state *table, unsigned n_states, unsigned initial);
bool sm_may(const struct sm *m, unsigned next);
void sm_move(struct sm *m, unsigned next);
const char *sm_name(const struct sm *m);

#endif
