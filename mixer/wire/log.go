package wire

import (
	"math"
	"strconv"
)

// LogVisitor is told what a scan of logs finds, in order.
type LogVisitor interface {
	Record()                     // a log record begins
	Attribute(key, value []byte) // of the record; valid as long as the input
	End()                        // the record has ended
}

// ScanLogs walks through the records of a logs request. Attributes that are
// neither text nor numbers are passed over. After an error the rest is not visited,
// and End has not been called for the record in which it is.
func ScanLogs(data []byte, v LogVisitor) error {
	return each(data, 1, func(resourceLogs []byte) error {
		return each(resourceLogs, 2, func(scopeLogs []byte) error {
			return each(scopeLogs, 2, func(record []byte) error {
				v.Record()
				if err := each(record, 6, func(kv []byte) error {
					key, value, err := keyValue(kv)
					if err != nil {
						return err
					}
					text, err := text(value)
					if err == nil && text != nil {
						v.Attribute(key, text)
					}
					return err
				}); err != nil {
					return err
				}
				v.End()
				return nil
			})
		})
	})
}

// each calls f with every length-delimited field num of a message.
func each(data []byte, num uint32, f func([]byte) error) (err error) {
	var fd field
	for len(data) > 0 {
		if data, err = next(data, &fd); err != nil {
			return err
		}
		if fd.num == num && fd.kind == typeBytes {
			if err := f(fd.bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// text is an AnyValue as text; nil if it is neither text nor a number.
func text(value []byte) (out []byte, err error) {
	var f field
	for len(value) > 0 {
		if value, err = next(value, &f); err != nil {
			return nil, err
		}
		switch {
		case f.num == 1 && f.kind == typeBytes:
			out = f.bytes
		case f.num == 3 && f.kind == typeVarint:
			out = strconv.AppendInt(nil, int64(f.value), 10)
		case f.num == 4 && f.kind == typeFixed64:
			out = strconv.AppendFloat(nil, math.Float64frombits(f.value), 'f', -1, 64)
		}
	}
	return out, nil
}
