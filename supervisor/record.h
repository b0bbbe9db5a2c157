/* SPDX-License-Identifier: Apache-2.0 */
/* What the next supervisor has to know: one file for each session in RUN/state, and the
 * version that was made current.  A worker tells what it holds; it does not know, and is
 * not believed, what a session is called and whose it is.
 *
 * Written in one piece or not at all.  What cannot be read is named in the log and put
 * aside as NUMBER.json.damaged: nothing is guessed from half a record.  Records of another boot are removed:
 * nothing that they name can be alive. */
#ifndef SUPERVISOR_RECORD_H
#define SUPERVISOR_RECORD_H

#include <stdbool.h>
#include <stddef.h>

struct session;
struct supervisor;

/* Opens RUN/state; sup->records is NULL before.  0 or a negative errno, logged. */
int record_open(struct supervisor *sup);
void record_close(struct supervisor *sup);

/* Writes the session as it is now.  What cannot be written is logged: the session is
 * served, and not found after a restart. */
void record_save(const struct session *session);
void record_remove(const struct session *session);

/* Makes a session in state RECOVERING of every record.  Returns how many; *ret_damaged
 * says how many could not be read. */
size_t record_load_all(struct supervisor *sup, size_t *ret_damaged);

void record_save_current(struct supervisor *sup, const char *version);
/* False when none was saved. */
bool record_load_current(struct supervisor *sup, char *version, size_t bytes);

#endif
