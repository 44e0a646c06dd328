/* bench/floor.h - what a step of bench/train costs at least on this machine: its matrix products alone, in
 * the fastest library and precision found, and its unavoidable memory traffic at the measured bandwidth. */
#pragma once
#include <stdint.h>

/* Prints JSON: milliseconds of products by library and precision, bytes, bandwidth, the floor in the best
 * precision and in fp32. 0 on success.
 */
int floor_print(uint32_t threads);
