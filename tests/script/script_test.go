package script_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/xebec-mesh/xebec/tests/script"
)

func TestRun(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(*testing.T) map[string]script.Command {
		return map[string]script.Command{
			"upper": func(s *script.State, args []string) (string, error) {
				data, err := s.File(args[0])
				return strings.ToUpper(string(data)), err
			},
			"fail": func(_ *script.State, args []string) (string, error) {
				return "", errors.New(strings.Join(args, " "))
			},
		}
	})
}
