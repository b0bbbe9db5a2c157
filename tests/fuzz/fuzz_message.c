/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever decodes must encode, and decode again to the same message.  The first byte
 * of an input says who sends (bit 0) and with how many descriptors (bits 1 to 3). */
#include <stdlib.h>
#include <string.h>

#include "ipc/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(int held)
{
	if (!held)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES], again[IPC_MAX_FRAME_BYTES];
	struct ipc_msg first, second;

	if (size == 0)
		return 0;
	enum ipc_role sender = data[0] & 1 ? IPC_WORKER : IPC_SUPERVISOR;
	size_t nr_fds = (data[0] >> 1) & 7;
	if (ipc_decode(&first, data + 1, size - 1, sender, nr_fds) != IPC_OK)
		return 0;
	expect(ipc_type_sender(first.type) == sender);
	expect(ipc_type_fds(first.type) == nr_fds);
	int n = ipc_encode(&first, frame, sizeof(frame));
	expect(n > 0 && (size_t)n <= size - 1); /* ours is the shortest encoding */
	expect(ipc_decode(&second, frame, (size_t)n, sender, nr_fds) == IPC_OK);
	expect(memcmp(&first, &second, sizeof(first)) == 0);
	expect(ipc_encode(&second, again, sizeof(again)) == n);
	expect(memcmp(frame, again, (size_t)n) == 0);
	return 0;
}
