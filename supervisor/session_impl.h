/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of a session; for nobody else. */
#ifndef SUPERVISOR_SESSION_IMPL_H
#define SUPERVISOR_SESSION_IMPL_H

#include <stddef.h>

#include "supervisor/session.h"

/* session.c */

/* A session in no list that holds nothing, or NULL. */
struct session *session_new(struct sessions *sessions);

/* Puts one that was found among the live ones, in order of creation, as the list is. */
void sessions_insert(struct sessions *sessions, struct session *session);

/* From every list; its waits must be gone. */
void session_free(struct session *session);

/* The deadline of the state that was entered, if it has one; stops any other. */
void session_arm_deadline(struct session *session);
/* Decides how it ends; the first decision stays.  reason is ours, or made printable. */
void session_decide(struct session *session, enum session_outcome outcome, const char *reason);
/* What act_end does: keeps the numbers, lets go of everything else, becomes a tombstone. */
void session_bury(struct session *session);
/* No worker answers for it any more, for this reason. */
void session_lost_worker(struct session *session, const char *reason);
/* The pidfd says so. */
void session_vmm_exited(struct session *session);

/* session_stats.c */

/* Nothing of it has been counted yet: takes every page for absent. */
void session_reset_counts(struct session *session);
/* Copies the numbers out of the page map, which is about to go. */
void session_keep_numbers(struct session *session);
void session_set_version(struct session *session, const char *version);
/* Adds the numbers of a tombstone that goes to the totals. */
void session_retire(struct sessions *sessions, const struct session *session);

/* session_create.c: nobody who waits for one is told. */
void sessions_cancel_creations(struct sessions *sessions);

/* session_request.c: a copy with texts of its own. */
void session_request_copy(struct session_request *to, const struct session_request *from);
void session_request_free(struct session_request *request);

/* sessions.c */

/* Its waits are told at the end of this loop turn. */
void session_mark_changed(struct session *session);

/* session_place.c: which worker has it. */

/* Binds it to the child that new sessions go to and sends it there when that child is
 * ready.  0, or a negative errno and a sentence; then it is bound to none. */
int session_place(struct session *session, char *why, size_t why_bytes);
/* The errno of a want of ours, of which the worker is innocent. */
bool session_lacks_resources(int error);
/* After its worker died: another worker, now or when one can be started, or NO_WORKER. */
void session_place_again(struct session *session);
/* Off the list of its child, or of those that wait for one. */
void session_unplace(struct session *session);
/* On to those that wait until a worker can be had. */
void session_wait_for_place(struct session *session);
/* Tries again for each session that waits for a worker; is_new: for those too that are not
 * to be tried again yet, because there is another worker now. */
void sessions_place_homeless(struct sessions *sessions, bool is_new);

/* session_trial.c: which session kills workers. */

void session_trial_init(struct session *session);
/* It is to be adopted by a worker for trials. */
bool session_is_suspect(const struct session *session);
/* No worker is to adopt it. */
bool session_is_guilty(const struct session *session);
/* Whatever has been: its next crash alone is enough. */
void session_suspect(struct session *session);
/* A worker serves it: begins its trial if it is on one. */
void session_trial_served(struct session *session);
/* Its worker has it no more. */
void session_trial_end(struct session *session);
/* The worker has died with the sessions that it still has on its list: remembers that, to
 * find out who kills workers. */
void session_trial_judge(const struct child *child);

/* session_adopt.c: another worker for a session in the middle of its life. */

/* Off its dead worker and on to another, now or as soon as one can be had. */
void session_adopt(struct session *session);
/* Not at once: the worker that was asked would not have it. */
void session_adopt_later(struct session *session);
/* How long not, after so many refusals in a row. */
uint64_t session_adopt_pause_ms(const struct session *session);
/* It is served again: measures how long it was not. */
void session_adopt_done(struct session *session);
/* Its worker does not let go of it. */
void session_adopt_insist(struct session *session);

/* session_accept.c: the VMM's connection. */

void session_accept_init(struct session *session);
/* Whether to accept is looked at anew: after anything that it depends on has changed. */
void session_accept_watch(struct session *session);
void session_accept_stop(struct session *session);
/* session_link.c: gives its worker the connection.  As child_send(). */
int session_send_connect(struct session *session);

/* session_fds.c: what a worker hands over. */

bool session_is_userfaultfd(int fd);
/* A stream connection that was accepted from this session's own socket; and that socket. */
bool session_is_connection(const struct session *session, int fd);
bool session_is_listener(const struct session *session, int fd);
/* The file that was opened when the session was created, for reading only. */
bool session_is_image(const struct session *session, int fd);
/* That file was modified since. */
bool session_image_differs(const struct session *session);
/* Maps and takes over a page map of the image's size.  0 or a negative errno. */
int session_take_map(struct session *session, int *fd);
/* Nothing is missing that a worker needs to take it over. */
bool session_is_whole(const struct session *session);
/* What the image is, and the socket and the VMM's user, if fd can say so, of a session that has
 * no record. */
void session_learn_image(struct session *session, int fd);
void session_learn_socket(struct session *session, int fd);
/* Its regions, from the page map. */
void session_measure(struct session *session);
/* Who is at the other end, to be watched.  0 and who it is; -ESRCH when it is gone; -EPERM
 * when it is somebody else, and then it is closed. */
int session_meet_vmm(struct session *session, int connection);
/* What follows from meeting the VMM. */
void session_watch_vmm(struct session *session, int met);

/* What the VMM has chosen at UFFDIO_API: UFFD_FEATURE_….  False when the kernel does not say. */
bool session_uffd_features(int fd, uint64_t *ret);

/* picture.c: the picture that is awaited has come. */
void session_pictured(struct session *session, const struct ipc_session_pictured *msg);

/* session_image.c */

/* Another worker has it, which says for itself what it cannot read. */
void session_image_forget(struct session *session);

/* session_link.c: what is said to the worker. */

/* The session that a message of child is about.  0; -ESTALE when it has ended or the child
 * never had it in this life, which is late, not a lie; -EPROTO. */
int session_find_told(struct child *child, uint64_t number, struct session **ret);

/* The message that makes a worker have it: SESSION_OPEN, or SESSION_ADOPT in the middle of its
 * life.  0, or a negative errno: see child_send(). */
int session_send(struct session *session);
/* False when child is too old for what the session needs: then -EPROTONOSUPPORT is what sending
 * it says, and the session waits for another. */
bool session_suits(const struct session *session, const struct child *child);
int session_send_complete(struct session *session, uint64_t rate_bytes);
/* True when an answer or the end of the worker will follow. */
bool session_send_close(struct session *session);

#endif
