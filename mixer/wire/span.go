package wire

import "strings"

// TraceID and SpanID are as W3C trace context and OTLP have them.
type (
	TraceID [16]byte
	SpanID  [8]byte
)

// Span is what an index needs of a span.
type Span struct {
	Trace      TraceID
	ID, Parent SpanID
	Start, End uint64 // ns since 1970
	Kind       uint8  // as opentelemetry.proto.trace.v1.Span.SpanKind
	Error      bool
	Name       []byte // valid as long as the input
	Raw        []byte // the span's message; valid as long as the input
}

// Visitor is told what a scan finds, in order.
type Visitor interface {
	Resource(service []byte) // service.name of the spans that follow; may be empty
	Span(*Span)              // valid during the call
}

// ScanSpans walks through a traces request. It returns how many spans had no
// valid identifiers; they are not visited. After an error the rest is not visited.
func ScanSpans(data []byte, v Visitor) (invalid int, err error) {
	var f field
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return invalid, err
		}
		if f.num != 1 || f.kind != typeBytes {
			continue
		}
		n, err := scanResourceSpans(f.bytes, v)
		invalid += n
		if err != nil {
			return invalid, err
		}
	}
	return invalid, nil
}

func scanResourceSpans(data []byte, v Visitor) (invalid int, err error) {
	resource, err := lookup(data, 1)
	if err != nil {
		return 0, err
	}
	service, err := Attribute(resource, "service.name")
	if err != nil {
		return 0, err
	}
	v.Resource(service)
	var f field
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return invalid, err
		}
		if f.num != 2 || f.kind != typeBytes {
			continue
		}
		n, err := scanScopeSpans(f.bytes, v)
		invalid += n
		if err != nil {
			return invalid, err
		}
	}
	return invalid, nil
}

func scanScopeSpans(data []byte, v Visitor) (invalid int, err error) {
	var f field
	var s Span
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return invalid, err
		}
		if f.num != 2 || f.kind != typeBytes {
			continue
		}
		ok, err := parseSpan(f.bytes, &s)
		if err != nil {
			return invalid, err
		}
		if !ok {
			invalid++
			continue
		}
		v.Span(&s)
	}
	return invalid, nil
}

// parseSpan reads a span's message; ok is whether its identifiers are valid.
func parseSpan(data []byte, s *Span) (ok bool, err error) {
	*s = Span{Raw: data}
	var f field
	valid := true
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return false, err
		}
		switch {
		case f.num == 1 && f.kind == typeBytes:
			valid = valid && copy(s.Trace[:], f.bytes) == 16 && len(f.bytes) == 16
		case f.num == 2 && f.kind == typeBytes:
			valid = valid && copy(s.ID[:], f.bytes) == 8 && len(f.bytes) == 8
		case f.num == 4 && f.kind == typeBytes:
			valid = valid && (len(f.bytes) == 0 || copy(s.Parent[:], f.bytes) == 8 && len(f.bytes) == 8)
		case f.num == 5 && f.kind == typeBytes:
			s.Name = f.bytes
		case f.num == 6 && f.kind == typeVarint:
			s.Kind = uint8(f.value & 7)
		case f.num == 7 && f.kind == typeFixed64:
			s.Start = f.value
		case f.num == 8 && f.kind == typeFixed64:
			s.End = f.value
		case f.num == 15 && f.kind == typeBytes:
			if s.Error, err = isError(f.bytes); err != nil {
				return false, err
			}
		}
	}
	return valid && s.Trace != TraceID{} && s.ID != SpanID{}, nil
}

// RequestName is method and path of a span that a proxy made, "" of any other: a
// proxy names its spans by its own configuration, which says little to a person.
func RequestName(span []byte) string {
	var component, method, target []byte
	var f field
	for rest := span; len(rest) > 0; {
		var err error
		if rest, err = next(rest, &f); err != nil {
			return ""
		}
		if f.num != 9 || f.kind != typeBytes {
			continue
		}
		key, value, err := keyValue(f.bytes)
		if err != nil {
			return ""
		}
		var into *[]byte
		switch string(key) {
		case "component":
			into = &component
		case "http.method", "http.request.method":
			into = &method
		case "http.url", "url.full", "url.path":
			into = &target
		default:
			continue
		}
		if *into, err = lookup(value, 1); err != nil {
			return ""
		}
	}
	if string(component) != "proxy" || len(method) == 0 {
		return ""
	}
	return RequestOf(string(method), string(target))
}

// RequestOf is method and path, without host and query.
func RequestOf(method, url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		_, path, _ := strings.Cut(rest, "/")
		url = "/" + path
	}
	path, _, _ := strings.Cut(url, "?")
	if path == "" {
		path = "/"
	}
	return method + " " + path
}

// isError reads a Status message: code is field 3, and ERROR is 2.
func isError(data []byte) (is bool, err error) {
	var f field
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return false, err
		}
		if f.num == 3 && f.kind == typeVarint {
			is = f.value == 2
		}
	}
	return is, nil
}

// lookup returns the first length-delimited field num of a message, nil if there is none.
func lookup(data []byte, num uint32) (_ []byte, err error) {
	var f field
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return nil, err
		}
		if f.num == num && f.kind == typeBytes {
			return f.bytes, nil
		}
	}
	return nil, nil
}

// Attribute returns a string attribute of a Resource message, nil if there is none.
func Attribute(resource []byte, key string) (value []byte, err error) {
	var f field
	for len(resource) > 0 {
		if resource, err = next(resource, &f); err != nil {
			return nil, err
		}
		if f.num != 1 || f.kind != typeBytes {
			continue
		}
		k, v, err := keyValue(f.bytes)
		if err != nil {
			return nil, err
		}
		if string(k) == key {
			return lookup(v, 1) // AnyValue.string_value
		}
	}
	return nil, nil
}

// keyValue reads a KeyValue message; value is the AnyValue's message.
func keyValue(data []byte) (key, value []byte, err error) {
	var f field
	for len(data) > 0 {
		if data, err = next(data, &f); err != nil {
			return nil, nil, err
		}
		switch {
		case f.num == 1 && f.kind == typeBytes:
			key = f.bytes
		case f.num == 2 && f.kind == typeBytes:
			value = f.bytes
		}
	}
	return key, value, nil
}
