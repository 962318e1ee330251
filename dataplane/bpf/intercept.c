//go:build ignore

/* Interception of a meshed pod's connections, except the socket lookup.
 *
 * Outbound, on the application containers' cgroups: connect remembers whom the
 * application called and sends it to the sidecar's listener on loopback; when
 * the source port is known (TCP_CONNECT_CB, before the SYN leaves) the memory
 * moves to where the sidecar's getsockopt finds it.
 *
 * Inbound, on the sidecar's cgroup: the listening socket registers itself.
 *
 * The programs are the same for every pod; what differs is in maps, by the
 * cookie of the network namespace, which is never used twice.
 */
#include "intercept.h"

#define SOL_IP 0
#define SOL_IPV6 41
#define SO_ORIGINAL_DST 80

#define ONLY_INCLUDED 1 /* what no prefix includes is dialled directly */

#define EXCLUDED 1
#define INCLUDED 2

struct pod {
	__be16 outbound; /* the sidecar's listener for what the application dials */
	__be16 inbound;  /* its listener for what arrives */
	__u32 flags;
};

struct prefix_key {
	__u32 bits; /* 64 of netns and those of addr */
	__be32 netns[2];
	struct addr addr;
};

struct original {
	struct addr addr;
	__be16 port;
	__u16 pad;
};

/* The source of a connection to the sidecar's outbound listener. */
struct source {
	__u64 netns;
	struct addr addr;
	__be16 port;
	__u16 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct pod);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, __u8);
} prefixes SEC(".maps");

/* Entries are read within moments of being written. None is deleted: a client
 * that writes and closes is gone before the sidecar asks. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct source);
	__type(value, struct original);
} originals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct original);
} dialled SEC(".maps");

INLINE int excluded(__u64 netns, const struct pod *pod, const struct addr *dst, __be16 port)
{
	struct port_key pk = { .netns = netns, .port = port, .direction = OUTBOUND };
	struct prefix_key key = { .bits = 64 + 128 };
	__u8 *rule;

	if (bpf_map_lookup_elem(&ports, &pk))
		return 1;
	__builtin_memcpy(key.netns, &netns, sizeof(netns));
	key.addr = *dst;
	rule = bpf_map_lookup_elem(&prefixes, &key);
	if (rule)
		return *rule == EXCLUDED;
	return pod->flags & ONLY_INCLUDED;
}

/* Says whether the connection goes to the sidecar, and to which port there. */
INLINE int redirect(struct bpf_sock_addr *ctx, const struct addr *dst, __be16 *port)
{
	struct original *memory;
	struct pod *pod;
	__u64 netns;

	if (ctx->protocol != IPPROTO_TCP || !ctx->sk)
		return 0;
	netns = bpf_get_netns_cookie(ctx);
	pod = bpf_map_lookup_elem(&pods, &netns);
	if (!pod || addr_is_loopback(dst) || excluded(netns, pod, dst, ctx->user_port)) {
		bpf_sk_storage_delete(&dialled, ctx->sk); /* an earlier try on this socket */
		return 0;
	}
	memory = bpf_sk_storage_get(&dialled, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!memory)
		return -1;
	memory->addr = *dst;
	memory->port = ctx->user_port;
	*port = pod->outbound;
	return 1;
}

INLINE int refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

SEC("cgroup/connect4")
int intercept_connect4(struct bpf_sock_addr *ctx)
{
	struct addr dst, local;
	__be16 port = 0;
	int verdict;

	dest4(ctx, &dst);
	verdict = redirect(ctx, &dst, &port);
	if (verdict < 0)
		return refuse();
	if (verdict) {
		addr_set4(&local, bpf_htonl(0x7f000001));
		set_dest4(ctx, &local, port);
	}
	return 1;
}

SEC("cgroup/connect6")
int intercept_connect6(struct bpf_sock_addr *ctx)
{
	struct addr dst, local = {};
	__be16 port = 0;
	int verdict;

	dest6(ctx, &dst);
	verdict = redirect(ctx, &dst, &port);
	if (verdict < 0)
		return refuse();
	if (verdict) {
		if (addr_is4(&dst)) /* the socket speaks IPv4, whatever its family */
			addr_set4(&local, bpf_htonl(0x7f000001));
		else
			local.w[3] = bpf_htonl(1);
		set_dest6(ctx, &local, port);
	}
	return 1;
}

SEC("cgroup/getpeername4")
int intercept_getpeername4(struct bpf_sock_addr *ctx)
{
	struct original *memory = ctx->sk ? bpf_sk_storage_get(&dialled, ctx->sk, 0, 0) : 0;

	if (memory && addr_is4(&memory->addr))
		set_dest4(ctx, &memory->addr, memory->port);
	return 1;
}

SEC("cgroup/getpeername6")
int intercept_getpeername6(struct bpf_sock_addr *ctx)
{
	struct original *memory = ctx->sk ? bpf_sk_storage_get(&dialled, ctx->sk, 0, 0) : 0;

	if (memory)
		set_dest6(ctx, &memory->addr, memory->port);
	return 1;
}

/* The application's sockets: TCP_CONNECT_CB comes after the source port is
 * chosen and before the SYN leaves, so the sidecar cannot accept too early. */
SEC("sockops")
int intercept_app(struct bpf_sock_ops *ctx)
{
	struct original *memory, copy;
	struct source source = {};

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB || !ctx->sk)
		return 1;
	memory = bpf_sk_storage_get(&dialled, ctx->sk, 0, 0);
	if (!memory)
		return 1;
	copy = *memory;
	source.netns = bpf_get_netns_cookie(ctx);
	source.port = bpf_htons((__u16)ctx->local_port);
	if (addr_is4(&copy.addr)) {
		addr_set4(&source.addr, CTX_U32(ctx, local_ip4));
	} else {
		source.addr.w[0] = CTX_U32(ctx, local_ip6[0]);
		source.addr.w[1] = CTX_U32(ctx, local_ip6[1]);
		source.addr.w[2] = CTX_U32(ctx, local_ip6[2]);
		source.addr.w[3] = CTX_U32(ctx, local_ip6[3]);
	}
	bpf_map_update_elem(&originals, &source, &copy, BPF_ANY);
	return 1;
}

INLINE struct original *accepted_original(struct bpf_sockopt *ctx)
{
	struct source source = {};
	struct bpf_sock *sk = ctx->sk;
	struct addr local;

	if (!sk)
		return 0;
	if (sk->family == AF_INET) {
		addr_set4(&local, CTX_U32(sk, src_ip4));
		addr_set4(&source.addr, CTX_U32(sk, dst_ip4));
	} else {
		local.w[0] = CTX_U32(sk, src_ip6[0]);
		local.w[1] = CTX_U32(sk, src_ip6[1]);
		local.w[2] = CTX_U32(sk, src_ip6[2]);
		local.w[3] = CTX_U32(sk, src_ip6[3]);
		source.addr.w[0] = CTX_U32(sk, dst_ip6[0]);
		source.addr.w[1] = CTX_U32(sk, dst_ip6[1]);
		source.addr.w[2] = CTX_U32(sk, dst_ip6[2]);
		source.addr.w[3] = CTX_U32(sk, dst_ip6[3]);
	}
	if (!addr_is_loopback(&local))
		return 0;
	source.netns = bpf_get_netns_cookie(ctx);
	source.port = sk->dst_port;
	return bpf_map_lookup_elem(&originals, &source);
}

/* struct sockaddr_in and sockaddr_in6, without the headers of a C library. */
struct sockaddr4 {
	__u16 family;
	__be16 port;
	__be32 addr;
	__u8 zero[8];
};

struct sockaddr6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	struct addr addr;
	__u32 scope;
};

/* Volatile, since the compiler would write both fields at once, which the
 * verifier forbids. */
INLINE int success(struct bpf_sockopt *ctx, __s32 len)
{
	*(volatile __s32 *)&ctx->optlen = len;
	*(volatile __s32 *)&ctx->retval = 0;
	return 1;
}

INLINE int answer4(struct bpf_sockopt *ctx, const struct original *o)
{
	struct sockaddr4 *sa = ctx->optval;

	if (!addr_is4(&o->addr) || (void *)(sa + 1) > ctx->optval_end)
		return 1;
	__builtin_memset(sa, 0, sizeof(*sa));
	sa->family = AF_INET;
	sa->port = o->port;
	sa->addr = o->addr.w[3];
	return success(ctx, sizeof(*sa));
}

INLINE int answer6(struct bpf_sockopt *ctx, const struct original *o)
{
	struct sockaddr6 *sa = ctx->optval;

	if ((void *)(sa + 1) > ctx->optval_end)
		return 1;
	__builtin_memset(sa, 0, sizeof(*sa));
	sa->family = AF_INET6;
	sa->port = o->port;
	sa->addr = o->addr;
	return success(ctx, sizeof(*sa));
}

SEC("cgroup/getsockopt")
int intercept_getsockopt(struct bpf_sockopt *ctx)
{
	struct original *memory;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6)) {
		/* A buffer of more than a page is not ours to change: leave it be. */
		if (ctx->optlen > 4096)
			ctx->optlen = 0;
		return 1;
	}
	memory = accepted_original(ctx);
	if (!memory)
		return 1;
	return ctx->level == SOL_IP ? answer4(ctx, memory) : answer6(ctx, memory);
}

/* The sidecar's sockets: its inbound listener registers itself, and does so
 * again when a restarted sidecar listens. A closed one leaves the map by itself. */
SEC("sockops")
int intercept_sidecar(struct bpf_sock_ops *ctx)
{
	struct listener_key key = {};
	struct pod *pod;

	if (ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB)
		return 1;
	key.netns = bpf_get_netns_cookie(ctx);
	pod = bpf_map_lookup_elem(&pods, &key.netns);
	if (!pod || bpf_htons((__u16)ctx->local_port) != pod->inbound)
		return 1;
	key.family = ctx->family;
	bpf_sock_hash_update(ctx, &listeners, &key, BPF_ANY);
	return 1;
}

char _license[] SEC("license") = "GPL";
