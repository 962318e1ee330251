/* What all programs share: an address of either family, and the helpers on it. */
#ifndef XEBEC_COMMON_H
#define XEBEC_COMMON_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define ECONNREFUSED 111

#define INLINE static __always_inline

/* Reads a 32-bit context field where the compiler would otherwise merge branches
 * and compute the field's address, which the verifier forbids. */
#define CTX_U32(ctx, field) ({                                              \
	__u64 _v;                                                           \
	asm volatile("%0 = *(u32 *)(%1 + %2)"                               \
		     : "=r"(_v)                                             \
		     : "r"(ctx), "i"(__builtin_offsetof(typeof(*(ctx)), field))); \
	(__u32)_v; })

/* An IPv4 address is in its mapped form, ::ffff:a.b.c.d. */
struct addr {
	__be32 w[4];
};

#define MAPPED bpf_htonl(0xffff)

INLINE void addr_set4(struct addr *a, __be32 ip)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = MAPPED;
	a->w[3] = ip;
}

INLINE int addr_is4(const struct addr *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == MAPPED;
}

INLINE int addr_equal(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] &&
	       a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

INLINE int ip4_is_loopback(__be32 ip)
{
	return (ip & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

INLINE int addr_is_loopback(const struct addr *a)
{
	if (addr_is4(a))
		return ip4_is_loopback(a->w[3]);
	return !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1);
}

struct range {
	struct addr addr;
	struct addr mask;
};

INLINE int in_range(const struct addr *a, const struct range *r)
{
	return !(((a->w[0] ^ r->addr.w[0]) & r->mask.w[0]) |
		 ((a->w[1] ^ r->addr.w[1]) & r->mask.w[1]) |
		 ((a->w[2] ^ r->addr.w[2]) & r->mask.w[2]) |
		 ((a->w[3] ^ r->addr.w[3]) & r->mask.w[3]));
}

/* The destination of a sock_addr program, and how to change it. The context
 * must be read and written field by field: the verifier rewrites each access. */
INLINE void dest4(struct bpf_sock_addr *ctx, struct addr *a)
{
	addr_set4(a, ctx->user_ip4);
}

INLINE void dest6(struct bpf_sock_addr *ctx, struct addr *a)
{
	a->w[0] = ctx->user_ip6[0];
	a->w[1] = ctx->user_ip6[1];
	a->w[2] = ctx->user_ip6[2];
	a->w[3] = ctx->user_ip6[3];
}

INLINE void set_dest4(struct bpf_sock_addr *ctx, const struct addr *a, __be16 port)
{
	ctx->user_ip4 = a->w[3];
	ctx->user_port = port;
}

INLINE void set_dest6(struct bpf_sock_addr *ctx, const struct addr *a, __be16 port)
{
	ctx->user_ip6[0] = a->w[0];
	ctx->user_ip6[1] = a->w[1];
	ctx->user_ip6[2] = a->w[2];
	ctx->user_ip6[3] = a->w[3];
	ctx->user_port = port;
}

#endif
