/* What the Services' programs share: those on sockets' calls (service.c) and the
 * one that ends sockets (sockets.c). */
#ifndef XEBEC_SERVICE_H
#define XEBEC_SERVICE_H

#include "common.h"

struct backend {
	struct addr addr;
	__be16 port;
	__u16 pad;
};

/* A backend that is in force, of services where somebody remembers backends. */
struct member {
	__u32 svc;
	struct backend backend;
};

/* A connected socket's Service, as long as its peer is this backend. */
struct peer {
	struct addr addr;
	__be16 port;
	__u16 pad;
	struct backend backend;
	__u32 svc;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct member);
	__type(value, __u32);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
} peers SEC(".maps");

INLINE int is_member(__u32 svc, const struct backend *b)
{
	struct member m = { .svc = svc, .backend = *b };

	return bpf_map_lookup_elem(&members, &m) != 0;
}

#endif
