//go:build ignore

/* What arrives at a meshed pod goes to its sidecar's inbound listener.
 *
 * One instance for each network namespace. Loopback passes: those are the
 * sidecar's own connections to the application, the agent's probes, and the
 * application talking to itself; the kernel lets no such address in from
 * outside. While nothing listens, all else is refused: the pod fails closed.
 */
#include "intercept.h"

const volatile __u64 netns;

INLINE int is_local(struct bpf_sk_lookup *ctx)
{
	struct addr remote, local;

	if (ctx->family == AF_INET)
		return ip4_is_loopback(ctx->remote_ip4) || ip4_is_loopback(ctx->local_ip4);
	remote.w[0] = ctx->remote_ip6[0];
	remote.w[1] = ctx->remote_ip6[1];
	remote.w[2] = ctx->remote_ip6[2];
	remote.w[3] = ctx->remote_ip6[3];
	local.w[0] = ctx->local_ip6[0];
	local.w[1] = ctx->local_ip6[1];
	local.w[2] = ctx->local_ip6[2];
	local.w[3] = ctx->local_ip6[3];
	return addr_is_loopback(&remote) || addr_is_loopback(&local);
}

/* -1: nobody listens for this family */
INLINE int assign(struct bpf_sk_lookup *ctx, __u32 family)
{
	struct listener_key key = { .netns = netns, .family = family };
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);
	long err;

	if (!sk)
		return -1;
	/* No flags: the kernel spreads connections over the workers' sockets. */
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return err ? -1 : 0;
}

SEC("sk_lookup")
int intercept_lookup(struct bpf_sk_lookup *ctx)
{
	struct port_key port = { .netns = netns, .direction = INBOUND };

	if (ctx->protocol != IPPROTO_TCP || is_local(ctx))
		return SK_PASS;
	port.port = bpf_htons((__u16)ctx->local_port);
	if (bpf_map_lookup_elem(&ports, &port))
		return SK_PASS;
	if (assign(ctx, ctx->family) == 0)
		return SK_PASS;
	/* A listener on :: takes IPv4 as well. */
	if (ctx->family == AF_INET && assign(ctx, AF_INET6) == 0)
		return SK_PASS;
	return SK_DROP;
}

char _license[] SEC("license") = "GPL";
