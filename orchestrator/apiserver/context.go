package apiserver

import (
	"context"

	"k8s.io/apiserver/pkg/authentication/user"
)

type userKey struct{}

func withUser(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// UserFrom returns who sent the request that a handler of Config.Extra serves.
func UserFrom(ctx context.Context) (user.Info, bool) {
	u, ok := ctx.Value(userKey{}).(user.Info)
	return u, ok
}
