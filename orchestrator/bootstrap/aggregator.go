package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// AggregatorConfig says what an Aggregator works on. All fields are required.
type AggregatorConfig struct {
	Client client.Interface
	Log    *slog.Logger
}

// Aggregator keeps the rules of the cluster roles that consist of others. It is
// their only writer.
type Aggregator struct {
	cfg   AggregatorConfig
	roles client.View[*rbacv1.ClusterRole]
}

// NewAggregator checks cfg.
func NewAggregator(cfg AggregatorConfig) (*Aggregator, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("make role aggregator: client and log are required")
	}
	return &Aggregator{cfg: cfg}, nil
}

// Run follows the roles until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	a.roles = client.For(a.cfg.Client, client.ClusterRoles).Informer(client.ListOptions{})
	q, err := reconcile.New(reconcile.Config{
		Name:      "clusterroleaggregation",
		Watch:     []reconcile.Watch{{Informer: a.roles.Informer, Keys: a.aggregated}},
		Reconcile: a.reconcile,
		Log:       a.cfg.Log,
	})
	if err != nil {
		return err
	}
	return q.Run(ctx)
}

// aggregated: any role may be part of any that consists of others; those are few.
func (a *Aggregator) aggregated(client.Event) []types.NamespacedName {
	var keys []types.NamespacedName
	for _, r := range a.roles.List("") {
		if r.AggregationRule != nil {
			keys = append(keys, client.Key(r))
		}
	}
	return keys
}

func (a *Aggregator) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	role, ok := a.roles.Get("", key.Name)
	if !ok || role.AggregationRule == nil {
		return 0, nil
	}
	rules := Aggregate(role, a.roles.List(""))
	if equality.Semantic.DeepEqual(rules, role.Rules) || len(rules) == 0 && len(role.Rules) == 0 {
		return 0, nil
	}
	fixed := role.DeepCopy()
	fixed.Rules = rules
	_, err := client.For(a.cfg.Client, client.ClusterRoles).Update(ctx, fixed)
	return 0, err
}
