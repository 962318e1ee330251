package metrics

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Histogram counts durations in steps of a fifth of a power of two or less: four
// steps an octave from 64 µs up. It is exact enough for a percentile that a person
// reads, and holds only the steps that were hit.
type Histogram struct {
	steps []step // by at
}

type step struct {
	at    uint8
	count uint32
}

// stepOf is the number of the step that holds d.
func stepOf(d time.Duration) uint8 {
	u := uint64(max(d, 0)) >> 14 // 16.384 µs; four of them are step 4, about 64 µs
	if u < 4 {
		return uint8(u)
	}
	top := bits.Len64(u) - 1
	return uint8(min(4*(top-1)+int(u>>(top-2)&3), math.MaxUint8))
}

// bound is the least duration above a step.
func bound(at uint8) time.Duration {
	n := uint64(at) + 1
	if n < 4 {
		return time.Duration(n << 14)
	}
	return time.Duration((4 + n&3) << (n/4 - 1) << 14)
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) { h.add(stepOf(d), 1) }

func (h *Histogram) add(at uint8, n uint32) {
	i, ok := slices.BinarySearchFunc(h.steps, at, func(s step, at uint8) int { return int(s.at) - int(at) })
	if !ok {
		h.steps = slices.Insert(h.steps, i, step{at: at})
	}
	h.steps[i].count += n
}

// Merge adds what o has counted.
func (h *Histogram) Merge(o Histogram) {
	for _, s := range o.steps {
		h.add(s.at, s.count)
	}
}

// Quantile is a duration that a share q of all did not exceed, to within a fifth;
// 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for _, s := range h.steps {
		total += uint64(s.count)
	}
	if total == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(total))), 1)
	var seen uint64
	for _, s := range h.steps {
		if seen+uint64(s.count) < rank {
			seen += uint64(s.count)
			continue
		}
		low := time.Duration(0)
		if s.at > 0 {
			low = bound(s.at - 1)
		}
		part := float64(rank-seen) / float64(s.count)
		return low + time.Duration(part*float64(bound(s.at)-low))
	}
	return 0
}
