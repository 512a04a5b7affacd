package main

import (
	"math/bits"
	"time"
)

const (
	// Below 256 us each microsecond has a bucket; above, each power of two has 128: a value is
	// known to less than 1 %.
	subBits    = 7
	subBuckets = 1 << subBits
	buckets    = (40 - subBits) * subBuckets
)

// histogram counts durations, millions of them in little memory.
type histogram struct {
	counts [buckets]int64
	total  int64
	max    time.Duration
}

func (h *histogram) add(took time.Duration) {
	h.counts[bucket(took.Microseconds())]++
	h.total++
	if took > h.max {
		h.max = took
	}
}

func bucket(us int64) int {
	if us < 0 {
		us = 0
	}
	shift := bits.Len64(uint64(us)) - subBits - 1
	if shift < 0 {
		shift = 0
	}
	found := shift<<subBits + int(us>>shift)
	if found >= buckets {
		return buckets - 1
	}
	return found
}

// upper is the largest value of a bucket in microseconds: a percentile is never flattered.
func upper(bucket int) int64 {
	shift := bucket>>subBits - 1
	if shift < 0 {
		shift = 0
	}
	return (int64(bucket-shift<<subBits)+1)<<shift - 1
}

// latency is a histogram as it is reported, in microseconds.
type latency struct {
	Count    int64     `json:"count"`
	MaxUs    int64     `json:"max_us"`
	Percents []float64 `json:"percents"`
	// ValuesUs has, for each of the percents, a value that so many of all do not exceed.
	ValuesUs []int64 `json:"values_us"`
}

func (h *histogram) report() latency {
	found := latency{Count: h.total, MaxUs: h.max.Microseconds(), Percents: percents()}
	var below int64
	at := 0
	for _, percent := range found.Percents {
		rank := h.rank(percent)
		for at < buckets && below+h.counts[at] < rank {
			below += h.counts[at]
			at++
		}
		value := int64(0)
		if h.total > 0 {
			value = upper(at)
		}
		if value > found.MaxUs {
			value = found.MaxUs
		}
		found.ValuesUs = append(found.ValuesUs, value)
	}
	return found
}

// rank is which of all values, counted from 1, is the percentile: the nearest that was seen.
func (h *histogram) rank(percent float64) int64 {
	// In hundredths of a percent, or 99.9 % of 1,000 would be 999.0000001 and so the last one.
	parts := int64(percent*100 + 0.5)
	rank := (h.total*parts + 9_999) / 10_000
	if rank < 1 {
		return 1
	}
	return rank
}

func percents() []float64 {
	var found []float64
	for percent := 1; percent < 100; percent++ {
		found = append(found, float64(percent))
	}
	return append(found, 99.5, 99.9, 99.95, 99.99)
}
