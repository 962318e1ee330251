package inject

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// check refuses annotations that interception could not honour: a port that is
// silently not excluded is worse than a pod that is not admitted.
func check(annotations map[string]string) error {
	for _, key := range []string{ExcludeInboundPorts, ExcludeOutboundPorts} {
		if err := ports(key, annotations[key]); err != nil {
			return err
		}
	}
	for _, c := range words(annotations[ExcludeOutboundCIDRs]) {
		if _, err := netip.ParsePrefix(c); err != nil && c != "*" {
			return fmt.Errorf("metadata.annotations[%s]: %q: want address ranges such as 10.0.0.0/8,fd00::/8", ExcludeOutboundCIDRs, c)
		}
	}
	return nil
}

func ports(key, list string) error {
	for _, p := range words(list) {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("metadata.annotations[%s]: %q: want ports from 1 to 65535, separated by commas", key, p)
		}
	}
	return nil
}

func words(list string) []string {
	var out []string
	for _, w := range strings.Split(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// escape writes a key as a part of a JSON pointer (RFC 6901).
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
