/* What the interception's programs share: one object for all pods (intercept.c)
 * and one small program for each network namespace (lookup.c). */
#ifndef XEBEC_INTERCEPT_H
#define XEBEC_INTERCEPT_H

#include "common.h"

#define OUTBOUND 0
#define INBOUND 1

/* A port that is not intercepted. */
struct port_key {
	__u64 netns;
	__be16 port;
	__u16 direction;
	__u32 pad;
};

/* Where a sidecar listens for what arrives. */
struct listener_key {
	__u64 netns;
	__u32 family;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct port_key);
	__type(value, __u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, __u64);
} listeners SEC(".maps");

#endif
