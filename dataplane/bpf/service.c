//go:build ignore

/* Socket-level load balancing of Services.
 *
 * connect and sendmsg find (address, port, protocol) in `services`, choose one
 * of `count` backends, and write its address over the destination. recvmsg and
 * getpeername show the Service's address again. All hooks sit on one cgroup,
 * below which every socket of the node lives.
 *
 * User space keeps this order, so that no lookup fails between two writes:
 * a new backend's slot is written before the count that includes it; a removed
 * one's slot is filled from the last before the count shrinks, and the last
 * slot goes after that.
 */
#include "service.h"

struct vip {
	struct addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct svc {
	__u32 id;
	__u32 count;    /* of backends; 0: refuse */
	__u32 affinity; /* seconds; 0: none */
	__u32 flags;
};

struct slot {
	__u32 svc;
	__u32 index;
};

struct affinity_key {
	__u64 client; /* network namespace: at connect there is no source address yet */
	__u32 svc;
	__u32 pad;
};

struct affinity {
	struct backend backend;
	__u32 used; /* seconds since boot */
};

/* Where an unconnected UDP socket's datagrams to a Service go. */
struct flow_key {
	__u64 socket;
	struct addr addr;
	__be16 port;
	__u16 pad[3];
};

struct flow {
	struct backend backend;
	__u32 svc;
};

/* Which Service a backend's answers to that socket belong to. */
struct reverse_key {
	__u64 socket;
	struct backend backend;
	__u32 pad;
};

struct ranges {
	__u32 count;
	struct range range[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct vip);
	__type(value, struct svc);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct slot);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct reverse_key);
	__type(value, struct vip);
} reverses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ranges);
} service_ranges SEC(".maps");

enum verdict { NOT_OURS, CHOSEN, REFUSED };

/* A Service address with a port that nobody serves must not leave the node. */
INLINE int is_service_address(const struct addr *a)
{
	__u32 zero = 0;
	struct ranges *r = bpf_map_lookup_elem(&service_ranges, &zero);

	if (!r)
		return 0;
	if (r->count > 0 && in_range(a, &r->range[0]))
		return 1;
	if (r->count > 1 && in_range(a, &r->range[1]))
		return 1;
	if (r->count > 2 && in_range(a, &r->range[2]))
		return 1;
	return r->count > 3 && in_range(a, &r->range[3]);
}

INLINE struct backend *random_backend(const struct svc *svc)
{
	struct slot slot = { .svc = svc->id };
	struct backend *b;

	slot.index = bpf_get_prandom_u32() % svc->count;
	b = bpf_map_lookup_elem(&backends, &slot);
	if (!b) { /* it was removed between two lookups */
		slot.index = 0;
		b = bpf_map_lookup_elem(&backends, &slot);
	}
	return b;
}

INLINE int choose_sticky(struct bpf_sock_addr *ctx, const struct svc *svc, struct backend *out)
{
	struct affinity_key key = { .client = bpf_get_netns_cookie(ctx), .svc = svc->id };
	struct affinity *old = bpf_map_lookup_elem(&affinities, &key);
	__u32 now = bpf_ktime_get_boot_ns() / 1000000000ULL;
	struct affinity fresh = { .used = now };
	struct backend *b;

	if (old && now - old->used < svc->affinity && is_member(svc->id, &old->backend)) {
		old->used = now;
		*out = old->backend;
		return CHOSEN;
	}
	b = random_backend(svc);
	if (!b)
		return REFUSED;
	*out = *b;
	fresh.backend = *b;
	bpf_map_update_elem(&affinities, &key, &fresh, BPF_ANY);
	return CHOSEN;
}

INLINE int choose(struct bpf_sock_addr *ctx, const struct svc *svc, struct backend *out)
{
	struct backend *b;

	if (!svc->count)
		return REFUSED;
	if (svc->affinity)
		return choose_sticky(ctx, svc, out);
	b = random_backend(svc);
	if (!b)
		return REFUSED;
	*out = *b;
	return CHOSEN;
}

INLINE int refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

INLINE struct svc *find(struct bpf_sock_addr *ctx, const struct addr *dst, struct vip *vip)
{
	__u32 proto = ctx->protocol;

	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP)
		return 0;
	vip->addr = *dst;
	vip->port = ctx->user_port;
	vip->proto = proto;
	return bpf_map_lookup_elem(&services, vip);
}

INLINE int connect(struct bpf_sock_addr *ctx, const struct addr *dst, struct backend *b)
{
	struct vip vip = {};
	struct svc *svc = find(ctx, dst, &vip);
	struct peer *peer;
	int verdict;

	if (!svc) {
		if (ctx->protocol == IPPROTO_UDP && ctx->sk) /* it may have been connected before */
			bpf_sk_storage_delete(&peers, ctx->sk);
		return vip.proto && is_service_address(dst) ? REFUSED : NOT_OURS;
	}
	verdict = choose(ctx, svc, b);
	if (verdict != CHOSEN || !ctx->sk)
		return verdict;
	peer = bpf_sk_storage_get(&peers, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (peer) {
		peer->addr = vip.addr;
		peer->port = vip.port;
		peer->backend = *b;
		peer->svc = svc->id;
	}
	return CHOSEN;
}

/* Datagrams of one socket to one Service stay with one backend while it lives. */
INLINE int sendmsg(struct bpf_sock_addr *ctx, const struct addr *dst, struct backend *b)
{
	struct vip vip = {};
	struct svc *svc = find(ctx, dst, &vip);
	struct flow_key key = {};
	struct reverse_key reverse = {};
	struct flow *old, flow = {};
	int verdict;

	if (!svc)
		return vip.proto && is_service_address(dst) ? REFUSED : NOT_OURS;
	key.socket = reverse.socket = bpf_get_socket_cookie(ctx);
	key.addr = vip.addr;
	key.port = vip.port;
	old = bpf_map_lookup_elem(&flows, &key);
	if (old && old->svc == svc->id && is_member(svc->id, &old->backend)) {
		*b = old->backend;
		reverse.backend = *b;
		if (bpf_map_lookup_elem(&reverses, &reverse)) /* keeps it young, too */
			return CHOSEN;
	} else {
		verdict = choose(ctx, svc, b);
		if (verdict != CHOSEN)
			return verdict;
		flow.backend = *b;
		flow.svc = svc->id;
		bpf_map_update_elem(&flows, &key, &flow, BPF_ANY);
		reverse.backend = *b;
	}
	bpf_map_update_elem(&reverses, &reverse, &vip, BPF_ANY);
	return CHOSEN;
}

/* The Service that the application called, for the address src that answers. */
INLINE int original(struct bpf_sock_addr *ctx, const struct addr *src, struct backend *out)
{
	struct reverse_key key = {};
	struct peer *peer;
	struct vip *vip;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return NOT_OURS;
	peer = ctx->sk ? bpf_sk_storage_get(&peers, ctx->sk, 0, 0) : 0;
	if (peer && peer->backend.port == (__be16)ctx->user_port && addr_equal(&peer->backend.addr, src)) {
		out->addr = peer->addr;
		out->port = peer->port;
		return CHOSEN;
	}
	if (ctx->protocol != IPPROTO_UDP)
		return NOT_OURS;
	key.socket = bpf_get_socket_cookie(ctx);
	key.backend.addr = *src;
	key.backend.port = ctx->user_port;
	vip = bpf_map_lookup_elem(&reverses, &key);
	if (!vip)
		return NOT_OURS;
	out->addr = vip->addr;
	out->port = vip->port;
	return CHOSEN;
}

#define FORWARD(name, section, family, how)                            \
	SEC(section)                                                   \
	int name(struct bpf_sock_addr *ctx)                            \
	{                                                              \
		struct backend b = {};                                 \
		struct addr dst;                                       \
		int verdict;                                           \
                                                                       \
		dest##family(ctx, &dst);                               \
		verdict = how(ctx, &dst, &b);                          \
		if (verdict == REFUSED)                                \
			return refuse();                               \
		if (verdict == CHOSEN)                                 \
			set_dest##family(ctx, &b.addr, b.port);        \
		return 1;                                              \
	}

#define BACKWARD(name, section, family)                                \
	SEC(section)                                                   \
	int name(struct bpf_sock_addr *ctx)                            \
	{                                                              \
		struct backend b = {};                                 \
		struct addr src;                                       \
                                                                       \
		dest##family(ctx, &src);                               \
		if (original(ctx, &src, &b) == CHOSEN)                 \
			set_dest##family(ctx, &b.addr, b.port);        \
		return 1;                                              \
	}

FORWARD(service_connect4, "cgroup/connect4", 4, connect)
FORWARD(service_connect6, "cgroup/connect6", 6, connect)
FORWARD(service_sendmsg4, "cgroup/sendmsg4", 4, sendmsg)
FORWARD(service_sendmsg6, "cgroup/sendmsg6", 6, sendmsg)
BACKWARD(service_recvmsg4, "cgroup/recvmsg4", 4)
BACKWARD(service_recvmsg6, "cgroup/recvmsg6", 6)
BACKWARD(service_getpeername4, "cgroup/getpeername4", 4)
BACKWARD(service_getpeername6, "cgroup/getpeername6", 6)

char _license[] SEC("license") = "GPL";
