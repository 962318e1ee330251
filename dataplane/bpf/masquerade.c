//go:build ignore

/* Source translation for pods' traffic that leaves the node by an uplink.
 *
 * egress: a packet from a pod to somebody who does not know pods' addresses gets
 * the uplink's address and a port (TCP, UDP) or identifier (ICMP echo) that is
 * free towards that destination. ingress: the answer is translated back, before
 * the kernel routes it. ICMP errors are translated by the packet they quote, so
 * that path MTU discovery works.
 *
 * Ports come from a range outside of the node's own ephemeral one, and an entry
 * holds for one remote address and port only. A flow is two entries of one LRU
 * map; either is found by the packets of its direction.
 */
#include "common.h"

#include <linux/pkt_cls.h>

#define ETH_IP bpf_htons(0x0800)
#define ETH_IP6 bpf_htons(0x86dd)

#define PORT_MIN 10000
#define PORT_COUNT 22768 /* up to 32767 */
#define TRIES 32

#define EGRESS 0
#define INGRESS 1

#define CLOSING 1 /* a FIN or RST was seen */

/* Seconds after which a silent flow's port may be taken. */
#define IDLE_TCP 7440
#define IDLE_UDP 180
#define IDLE_OTHER 60
#define IDLE_CLOSING 10

struct tuple {
	struct addr remote;
	struct addr local; /* the pod's for EGRESS, the uplink's for INGRESS */
	__be16 remote_port;
	__be16 local_port;
	__u8 proto;
	__u8 direction;
	__u16 pad;
};

/* What takes the place of the tuple's local side. */
struct translation {
	struct addr addr;
	__be16 port;
	__u16 flags;
	__u32 seen; /* seconds since boot */
};

struct masquerade_config {
	__u32 sources; /* the ranges that are translated */
	__u32 keeps;   /* the destinations for which they are not */
	struct range source[2];
	struct range keep[8];
};

struct uplink {
	struct addr addr4; /* zero: none, and IPv4 is left alone */
	struct addr addr6;
	__u32 header; /* bytes before the IP header: 14 for Ethernet */
};

struct fragment {
	struct addr remote;
	struct addr local;
	__u32 id;
	__u32 proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct translation);
} translations SEC(".maps");

/* Where the later fragments of an answer go: only the first has ports. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment);
	__type(value, struct addr);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* interface index */
	__type(value, struct uplink);
} uplinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct masquerade_config);
} masquerade_config SEC(".maps");

struct ip4 {
	__u8 ihl_version;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__be16 check;
	__be32 src;
	__be32 dst;
};

struct ip6 {
	__be32 version_flow;
	__be16 len;
	__u8 next;
	__u8 hops;
	struct addr src;
	struct addr dst;
};

struct ip6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* Where things are in a packet, whatever its family. Offsets are from the
 * start of the packet. */
struct packet {
	struct addr src, dst;
	__u32 l3, l4;
	__be16 sport, dport; /* identifier for ICMP echo, on the side of who asks */
	__u8 v4;
	__u8 proto;
	__u8 later;  /* a fragment after the first: no ports */
	__u8 first;  /* the first of several fragments */
	__u8 error;  /* an ICMP error: src to dport are of the packet that it quotes */
	__u8 flags;  /* of TCP */
	__u32 id;    /* of fragments */
	__u32 inner; /* error: where the quoted IP header is */
	__u32 inner_l4;
	struct addr outer_src, outer_dst;
};

#define ICMP6 58
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO 8
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129

INLINE int is_error(int v4, __u8 type)
{
	if (v4)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Reads an IP header at offset `at` into p; says where the next one begins, or 0. */
INLINE __u32 parse_ip(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct ip6_fragment frag;
	struct ip4 h4;
	struct ip6 h6;

	p->later = p->first = 0;
	if (p->v4) {
		if (bpf_skb_load_bytes(skb, at, &h4, sizeof(h4)))
			return 0;
		addr_set4(&p->src, h4.src);
		addr_set4(&p->dst, h4.dst);
		p->proto = h4.proto;
		p->id = h4.id;
		p->later = (h4.frag & bpf_htons(0x1fff)) != 0;
		p->first = !p->later && (h4.frag & bpf_htons(0x2000));
		return at + (h4.ihl_version & 15) * 4;
	}
	if (bpf_skb_load_bytes(skb, at, &h6, sizeof(h6)))
		return 0;
	p->src = h6.src;
	p->dst = h6.dst;
	p->proto = h6.next;
	if (h6.next != 44)
		return at + sizeof(h6);
	if (bpf_skb_load_bytes(skb, at + sizeof(h6), &frag, sizeof(frag)))
		return 0;
	p->proto = frag.next;
	p->id = frag.id;
	p->later = (frag.offset & bpf_htons(0xfff8)) != 0;
	p->first = !p->later && (frag.offset & bpf_htons(1));
	return at + sizeof(h6) + sizeof(frag);
}

/* Reads ports or what stands for them; 0 if the packet has none that we know. */
INLINE int parse_ports(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	__be16 ports[2];
	__u8 icmp[8];

	p->sport = p->dport = 0;
	if (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
			return 0;
		p->sport = ports[0];
		p->dport = ports[1];
		return 1;
	}
	if (p->proto != (p->v4 ? IPPROTO_ICMP : ICMP6))
		return 0;
	if (bpf_skb_load_bytes(skb, at, icmp, sizeof(icmp)))
		return 0;
	if (is_error(p->v4, icmp[0])) {
		p->error = 1;
		return 1;
	}
	if (icmp[0] == (p->v4 ? ICMP_ECHO : ICMP6_ECHO))
		__builtin_memcpy(&p->sport, icmp + 4, 2);
	else if (icmp[0] == (p->v4 ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY))
		__builtin_memcpy(&p->dport, icmp + 4, 2);
	else
		return 0;
	return 1;
}

/* Not inlined: the verifier then checks it once, on its own, rather than with
 * every state of its callers. Loading takes milliseconds instead of a tenth of a
 * second. Such a function must check its pointers. */
__attribute__((noinline)) int parse(struct __sk_buff *skb, struct packet *p, __u32 header)
{
	if (!p)
		return 0;
	p->v4 = skb->protocol == ETH_IP;
	if (!p->v4 && skb->protocol != ETH_IP6)
		return 0;
	p->l3 = header;
	p->l4 = parse_ip(skb, p, p->l3);
	if (!p->l4)
		return 0;
	if (p->later)
		return 1;
	if (!parse_ports(skb, p, p->l4))
		return 0;
	if (p->proto == IPPROTO_TCP)
		bpf_skb_load_bytes(skb, p->l4 + 13, &p->flags, 1);
	if (!p->error)
		return 1;
	p->outer_src = p->src;
	p->outer_dst = p->dst;
	p->inner = p->l4 + 8;
	p->inner_l4 = parse_ip(skb, p, p->inner);
	if (!p->inner_l4 || p->later)
		return 0;
	p->error = 0; /* an error about an error is none of ours */
	if (!parse_ports(skb, p, p->inner_l4) || p->error)
		return 0;
	p->error = 1;
	return 1;
}

INLINE int in_ranges(const struct addr *a, const struct range *r, __u32 count, __u32 max)
{
	__u32 i;

	for (i = 0; i < max && i < count; i++)
		if (in_range(a, &r[i]))
			return 1;
	return 0;
}

/* Whether a packet from src to dst gets the node's address. */
__attribute__((noinline)) int is_ours(const struct addr *src, const struct addr *dst)
{
	struct masquerade_config *cfg;
	__u32 zero = 0;

	cfg = bpf_map_lookup_elem(&masquerade_config, &zero);
	if (!cfg || !src || !dst)
		return 0;
	return in_ranges(src, cfg->source, cfg->sources, 2) && !in_ranges(dst, cfg->keep, cfg->keeps, 8);
}

INLINE __u32 now(void)
{
	return bpf_ktime_get_boot_ns() / 1000000000ULL;
}

INLINE int is_stale(const struct translation *t, __u8 proto, __u32 at)
{
	__u32 idle = IDLE_OTHER;

	if (t->flags & CLOSING)
		idle = IDLE_CLOSING;
	else if (proto == IPPROTO_TCP)
		idle = IDLE_TCP;
	else if (proto == IPPROTO_UDP)
		idle = IDLE_UDP;
	return at - t->seen > idle;
}

INLINE void touch(struct translation *t, const struct packet *p)
{
	t->seen = now();
	if (p->proto != IPPROTO_TCP || p->error)
		return;
	if (p->flags & 5) /* FIN, RST */
		t->flags |= CLOSING;
	else if (p->flags & 2) /* SYN: the port is used anew */
		t->flags &= ~CLOSING;
}

INLINE void forget_owner(const struct tuple *back, const struct translation *t)
{
	struct tuple out = *back;

	out.local = t->addr;
	out.local_port = t->port;
	out.direction = EGRESS;
	bpf_map_delete_elem(&translations, &out);
}

/* Finds a free port towards the remote and takes it: writes both entries. */
__attribute__((noinline)) int allocate(const struct tuple *out, const struct addr *addr, struct translation *forward)
{
	struct translation reverse = {}, *other;
	struct tuple back;
	__u32 start = bpf_get_prandom_u32(), i;

	if (!out || !addr || !forward)
		return 0;
	back = *out;
	reverse.addr = out->local;
	reverse.port = out->local_port;
	reverse.seen = now();
	back.local = *addr;
	back.direction = INGRESS;
	forward->addr = *addr;
	forward->seen = reverse.seen;
	for (i = 0; i < TRIES; i++) {
		back.local_port = bpf_htons(PORT_MIN + (start + i) % PORT_COUNT);
		other = bpf_map_lookup_elem(&translations, &back);
		if (other) {
			if (!is_stale(other, out->proto, reverse.seen))
				continue;
			forget_owner(&back, other);
			bpf_map_delete_elem(&translations, &back);
		}
		if (bpf_map_update_elem(&translations, &back, &reverse, BPF_NOEXIST))
			continue;
		forward->port = back.local_port;
		bpf_map_update_elem(&translations, out, forward, BPF_ANY);
		return 1;
	}
	return 0;
}

/* The translation of an outgoing flow; makes one where there is none. */
INLINE int translate_out(const struct packet *p, const struct addr *addr, struct translation *result)
{
	struct tuple out = {
		.remote = p->dst, .local = p->src, .remote_port = p->dport,
		.local_port = p->sport, .proto = p->proto, .direction = EGRESS,
	};
	struct translation *t = bpf_map_lookup_elem(&translations, &out), *r;
	struct tuple back = out;

	if (t && addr_equal(&t->addr, addr)) {
		*result = *t;
		touch(t, p);
		back.local = t->addr;
		back.local_port = t->port;
		back.direction = INGRESS;
		r = bpf_map_lookup_elem(&translations, &back);
		if (r && r->port == p->sport && addr_equal(&r->addr, &p->src)) {
			touch(r, p);
			return 1;
		}
		/* The way back was evicted, and may be somebody else's now. */
	}
	return allocate(&out, addr, result);
}

#define L4_CHECK(p) ((p)->l4 + ((p)->proto == IPPROTO_TCP ? 16 : (p)->proto == IPPROTO_UDP ? 6 : 2))
#define CSUM_FLAGS(p) ((p)->proto == IPPROTO_UDP && (p)->v4 ? BPF_F_MARK_MANGLED_0 : 0)

/* Replaces one address of the IP header, at offset `at`, in header and checksums.
 * The transport's checksum covers the address except for ICMP over IPv4. */
INLINE void set_addr(struct __sk_buff *skb, const struct packet *p, __u32 at, const struct addr *from,
		     const struct addr *to, __u32 check, int has_check, __u64 flags)
{
	__s64 diff;

	if (p->v4) {
		bpf_l3_csum_replace(skb, p->l3 + 10, from->w[3], to->w[3], 4);
		if (has_check)
			bpf_l4_csum_replace(skb, check, from->w[3], to->w[3], 4 | BPF_F_PSEUDO_HDR | flags);
		bpf_skb_store_bytes(skb, at, &to->w[3], 4, 0);
		return;
	}
	if (has_check) {
		diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);
		bpf_l4_csum_replace(skb, check, 0, diff, BPF_F_PSEUDO_HDR | flags);
	}
	bpf_skb_store_bytes(skb, at, to, sizeof(*to), 0);
}

INLINE void set_port(struct __sk_buff *skb, const struct packet *p, int source, __be16 from, __be16 to)
{
	__u32 at = p->l4 + (source ? 0 : 2);

	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		at = p->l4 + 4; /* the identifier of an echo */
	bpf_l4_csum_replace(skb, L4_CHECK(p), from, to, 2 | CSUM_FLAGS(p));
	bpf_skb_store_bytes(skb, at, &to, 2, 0);
}

#define SRC_AT(p) ((p)->l3 + ((p)->v4 ? 12 : 8))
#define DST_AT(p) ((p)->l3 + ((p)->v4 ? 16 : 24))
#define HAS_PSEUDO(p) ((p)->proto != IPPROTO_ICMP)

/* Replaces address and port of one side of the packet that an ICMP error quotes,
 * and keeps the error's own checksum right. The quoted transport checksum is
 * left as it is: who receives errors does not verify it. */
INLINE void set_quoted(struct __sk_buff *skb, const struct packet *p, int source, const struct addr *from,
		       const struct addr *to, __be16 from_port, __be16 to_port)
{
	__u32 at = p->inner_l4 + (source ? 0 : 2);
	__u32 check = p->l4 + 2;
	__s64 diff;

	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		at = p->inner_l4 + 4;
	bpf_l4_csum_replace(skb, check, from_port, to_port, 2);
	bpf_skb_store_bytes(skb, at, &to_port, 2, 0);
	if (p->v4) {
		/* The quoted header's checksum changes against the address, so the
		 * error's does not change. */
		bpf_l3_csum_replace(skb, p->inner + 10, from->w[3], to->w[3], 4);
		bpf_skb_store_bytes(skb, p->inner + (source ? 12 : 16), &to->w[3], 4, 0);
		return;
	}
	diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);
	bpf_l4_csum_replace(skb, check, 0, diff, 0);
	bpf_skb_store_bytes(skb, p->inner + (source ? 8 : 24), to, sizeof(*to), 0);
}

INLINE struct uplink *find_uplink(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex;

	return bpf_map_lookup_elem(&uplinks, &index);
}

INLINE int is_set(const struct addr *a)
{
	return a->w[0] | a->w[1] | a->w[2] | a->w[3];
}

/* An error that a pod sends about an answer it got: the quoted packet came from
 * the remote to the pod. */
INLINE int error_out(struct __sk_buff *skb, struct packet *p, const struct addr *addr)
{
	struct tuple out = {
		.remote = p->src, .local = p->dst, .remote_port = p->sport,
		.local_port = p->dport, .proto = p->proto, .direction = EGRESS,
	};
	struct translation *t = bpf_map_lookup_elem(&translations, &out), copy;

	if (!t)
		return TC_ACT_SHOT; /* it would name a pod's address to the world */
	copy = *t;
	set_quoted(skb, p, 0, &p->dst, &copy.addr, p->dport, copy.port);
	set_addr(skb, p, SRC_AT(p), &p->outer_src, addr, p->l4 + 2, !p->v4, 0);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int masquerade_egress(struct __sk_buff *skb)
{
	struct translation t = {};
	struct packet p = {};
	struct uplink *up = find_uplink(skb);
	struct addr addr;

	if (!up || !parse(skb, &p, up->header))
		return TC_ACT_UNSPEC;
	addr = p.v4 ? up->addr4 : up->addr6;
	if (!is_set(&addr) || !(p.error ? is_ours(&p.outer_src, &p.outer_dst) : is_ours(&p.src, &p.dst)))
		return TC_ACT_UNSPEC;
	if (p.error)
		return error_out(skb, &p, &addr);
	if (p.later) {
		set_addr(skb, &p, SRC_AT(&p), &p.src, &addr, 0, 0, 0);
		return TC_ACT_UNSPEC;
	}
	if (!translate_out(&p, &addr, &t))
		return TC_ACT_SHOT;
	set_port(skb, &p, 1, p.sport, t.port);
	set_addr(skb, &p, SRC_AT(&p), &p.src, &t.addr, L4_CHECK(&p), HAS_PSEUDO(&p), CSUM_FLAGS(&p));
	return TC_ACT_UNSPEC;
}

INLINE int later_fragment(struct __sk_buff *skb, struct packet *p)
{
	struct fragment key = { .remote = p->src, .local = p->dst, .id = p->id, .proto = p->proto };
	struct addr *to = bpf_map_lookup_elem(&fragments, &key), copy;

	if (to) {
		copy = *to;
		set_addr(skb, p, DST_AT(p), &p->dst, &copy, 0, 0, 0);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int masquerade_ingress(struct __sk_buff *skb)
{
	struct uplink *up = find_uplink(skb);
	struct tuple back = { .direction = INGRESS };
	struct translation *t, copy;
	struct fragment fragment = {};
	struct packet p = {};

	if (!up || !parse(skb, &p, up->header))
		return TC_ACT_UNSPEC;
	if (p.later)
		return later_fragment(skb, &p);
	/* What an error quotes is a packet that we sent. */
	back.remote = p.error ? p.dst : p.src;
	back.local = p.error ? p.src : p.dst;
	back.remote_port = p.error ? p.dport : p.sport;
	back.local_port = p.error ? p.sport : p.dport;
	back.proto = p.proto;
	t = bpf_map_lookup_elem(&translations, &back);
	if (!t)
		return TC_ACT_UNSPEC;
	copy = *t;
	if (p.error) {
		set_quoted(skb, &p, 1, &p.src, &copy.addr, p.sport, copy.port);
		set_addr(skb, &p, DST_AT(&p), &p.outer_dst, &copy.addr, p.l4 + 2, !p.v4, 0);
		return TC_ACT_UNSPEC;
	}
	touch(t, &p);
	if (p.first) {
		fragment.remote = p.src;
		fragment.local = p.dst;
		fragment.id = p.id;
		fragment.proto = p.proto;
		bpf_map_update_elem(&fragments, &fragment, &copy.addr, BPF_ANY);
	}
	set_port(skb, &p, 0, p.dport, copy.port);
	set_addr(skb, &p, DST_AT(&p), &p.dst, &copy.addr, L4_CHECK(&p), HAS_PSEUDO(&p), CSUM_FLAGS(&p));
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
