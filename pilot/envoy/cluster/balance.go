package cluster

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

const ringSize = 1024 // Istio's default

// balance chooses among endpoints: the one with the fewest requests, unless told otherwise.
func balance(c *clusterv3.Cluster, lb *networking.LoadBalancerSettings) {
	if c.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return // the client has chosen
	}
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	if h := lb.GetConsistentHash(); h != nil {
		hash(c, h)
		return
	}
	slow := slowStart(lb)
	switch lb.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if slow != nil {
			c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
		return
	case networking.LoadBalancerSettings_RANDOM:
		c.LbPolicy = clusterv3.Cluster_RANDOM
		return
	case networking.LoadBalancerSettings_PASSTHROUGH:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		c.EdsClusterConfig, c.LoadAssignment = nil, nil
		return
	}
	if slow != nil {
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
	}
}

func hash(c *clusterv3.Cluster, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	if m := h.GetMaglev(); m != nil {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		if m.GetTableSize() > 0 {
			c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(m.GetTableSize())}}
		}
		return
	}
	size := uint64(ringSize)
	if n := h.GetRingHash().GetMinimumRingSize(); n > 0 {
		size = n
	} else if n := h.GetMinimumRingSize(); n > 0 { //nolint:staticcheck // the older spelling is still written
		size = n
	}
	c.LbPolicy = clusterv3.Cluster_RING_HASH
	c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)}}
}

func slowStart(lb *networking.LoadBalancerSettings) *clusterv3.Cluster_SlowStartConfig {
	if w := lb.GetWarmup(); w.GetDuration() != nil {
		s := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: w.GetDuration()}
		if w.GetAggression() != nil {
			s.Aggression = &core.RuntimeDouble{DefaultValue: w.GetAggression().GetValue(), RuntimeKey: "upstream.slow_start.aggression"}
		}
		if w.GetMinimumPercent() != nil {
			s.MinWeightPercent = &typev3.Percent{Value: w.GetMinimumPercent().GetValue()}
		}
		return s
	}
	if d := lb.GetWarmupDurationSecs(); d != nil { //nolint:staticcheck // the older spelling is still written
		return &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: d}
	}
	return nil
}

// eject takes endpoints that fail out for a while.
func eject(c *clusterv3.Cluster, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	zero := wrapperspb.UInt32(0)
	out := &clusterv3.OutlierDetection{
		EnforcingSuccessRate:               zero, // Envoy's own heuristics are not what users asked for
		EnforcingFailurePercentage:         zero,
		EnforcingConsecutive_5Xx:           zero,
		EnforcingConsecutiveGatewayFailure: zero,
	}
	if e := o.GetConsecutive_5XxErrors(); e != nil {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = e, enforce(e)
	}
	if e := o.GetConsecutiveGatewayErrors(); e != nil {
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = e, enforce(e)
	}
	if n := o.GetConsecutiveErrors(); n > 0 { //nolint:staticcheck // the older spelling is still written
		e := wrapperspb.UInt32(uint32(n))
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = e, enforce(e)
	}
	out.SplitExternalLocalOriginErrors = o.GetSplitExternalLocalOriginErrors()
	if e := o.GetConsecutiveLocalOriginFailures(); e != nil && out.SplitExternalLocalOriginErrors {
		out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = e, enforce(e)
	}
	out.Interval = o.GetInterval()
	out.BaseEjectionTime = o.GetBaseEjectionTime()
	if n := o.GetMaxEjectionPercent(); n > 0 {
		out.MaxEjectionPercent = wrapperspb.UInt32(uint32(n))
	}
	if out.GetBaseEjectionTime().AsDuration() > 300*time.Second { // Envoy's default maximum
		out.MaxEjectionTime = out.BaseEjectionTime
	}
	c.OutlierDetection = out
	c.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: float64(o.GetMinHealthPercent())}
}

func enforce(n *wrapperspb.UInt32Value) *wrapperspb.UInt32Value {
	if n.GetValue() > 0 {
		return wrapperspb.UInt32(100)
	}
	return wrapperspb.UInt32(0)
}
