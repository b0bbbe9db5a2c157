/* SPDX-License-Identifier: Apache-2.0 */
/* The order that the opener gets, as pagerd makes and reads it. */
#ifndef SUPERVISOR_OPENER_ORDER_H
#define SUPERVISOR_OPENER_ORDER_H

#include "supervisor/opener.h"
#include "supervisor/options.h"

/* The caller frees. */
struct opener_order *opener_order_make(
    const struct options_list *roots, const struct opener_request *request);

/* The first part that is wanted. */
enum opener_part opener_order_first(const struct opener_order *order);

/* The path of a part that is wanted; nth: of the overlays. */
const char *opener_order_path(
    const struct opener_order *order, enum opener_part part, uint32_t nth);

/* A file with it, which the caller owns, or a negative errno. */
int opener_order_file(const struct opener_order *order);

#endif
