//go:build ignore

/* Ends UDP sockets that are connected to a backend that is gone.
 *
 * A connected socket sends without asking anybody, so a client that lives long
 * would talk to nobody for ever. Such a socket gets ECONNABORTED, its owner
 * connects again, and is balanced again. An iterator over the UDP sockets of one
 * network namespace; needs Linux 6.5.
 */
#include "service.h"

/* The one place where we look into the kernel's own structures: the fields are
 * found by name when the program is loaded. */
#define RELOCATED __attribute__((preserve_access_index))

#define CONNECTED 1 /* TCP_ESTABLISHED, which UDP has for it too */

struct sock_common {
	__be16 skc_dport;
	volatile unsigned char skc_state;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
} RELOCATED;

struct bpf_iter_meta;
struct udp_sock;

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
};

extern int bpf_sock_destroy(struct sock_common *sk) __ksym;

SEC("iter/udp")
int end_sockets(struct bpf_iter__udp *ctx)
{
	struct sock *sk = (struct sock *)ctx->udp_sk;
	struct peer *peer;

	if (!sk || sk->__sk_common.skc_state != CONNECTED)
		return 0;
	peer = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (!peer || peer->backend.port != sk->__sk_common.skc_dport)
		return 0;
	if (!is_member(peer->svc, &peer->backend))
		bpf_sock_destroy((struct sock_common *)sk);
	return 0;
}

char _license[] SEC("license") = "GPL";
