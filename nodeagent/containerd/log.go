package containerd

import (
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"

	"github.com/sirupsen/logrus"
)

// redirectLog sends what containerd writes to its process-wide logger to ours:
// warnings and worse, one level down, because what matters to a person comes back
// to us as an error as well.
func redirectLog(log *slog.Logger) {
	l := logrus.StandardLogger()
	l.SetLevel(logrus.WarnLevel)
	l.SetOutput(io.Discard)
	l.ReplaceHooks(logrus.LevelHooks{})
	l.AddHook(hook{log})
}

type hook struct{ log *slog.Logger }

func (hook) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

func (h hook) Fire(e *logrus.Entry) error {
	args := make([]any, 0, 2+2*len(e.Data))
	args = append(args, "message", e.Message)
	for k, v := range e.Data {
		args = append(args, k, v)
	}
	if e.Level <= logrus.ErrorLevel {
		h.log.Info("containerd reports a problem", args...)
	} else {
		h.log.Debug("containerd warns", args...)
	}
	return nil
}

func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}
