/* SPDX-License-Identifier: Apache-2.0 */
/* A picture of the pages of a session, all at one instant: what a worker writes into a memfd of
 * the supervisor.  One byte for each page of each region, the regions in the order of the page
 * map's header.  Whoever reads it trusts no byte of it. */
#ifndef COMMON_PICTURE_H
#define COMMON_PICTURE_H

enum picture_page {
	PICTURE_ABSENT,	 /* never filled: the guest has the image's bytes there */
	PICTURE_CLEAN,	 /* filled and not written: as it was */
	PICTURE_DIRTY,	 /* may have been written; without tracking, whatever is present */
	PICTURE_REMOVED, /* discarded and not touched since: zeros */
	PICTURE_PAGES
};

#endif
