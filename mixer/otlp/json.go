package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// fromJSON turns OTLP's JSON into protobuf. OTLP's JSON is protobuf's, but that
// identifiers are hexadecimal and unknown names are passed over.
//
// https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
func fromJSON(signal Signal, text []byte) ([]byte, error) {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	if err := identifiers(tree, 0); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	m := map[Signal]proto.Message{Traces: &tracepb.TracesData{}, Metrics: &metricspb.MetricsData{}, Logs: &logspb.LogsData{}}[signal]
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(plain, m); err != nil {
		return nil, fmt.Errorf("parse JSON: %w", err)
	}
	return proto.Marshal(m)
}

// maxDepth is how deep OTLP's messages nest, with room for attributes of attributes.
const maxDepth = 100

// identifiers turns hexadecimal identifiers into base64 wherever they are.
func identifiers(node any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("parse JSON: it nests deeper than %d", maxDepth)
	}
	switch n := node.(type) {
	case []any:
		for _, e := range n {
			if err := identifiers(e, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, v := range n {
			s, ok := v.(string)
			if !ok || !isIdentifier(key) {
				if err := identifiers(v, depth+1); err != nil {
					return err
				}
				continue
			}
			b, err := hex.DecodeString(s)
			if err != nil {
				return fmt.Errorf("parse JSON: %s %q is not hexadecimal", key, s)
			}
			n[key] = base64.StdEncoding.EncodeToString(b)
		}
	}
	return nil
}

func isIdentifier(key string) bool {
	switch key {
	case "traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id":
		return true
	}
	return false
}
