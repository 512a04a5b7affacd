package main

import (
	"testing"
	"time"
)

func TestBucketsLieSideBySideAndAreNarrow(t *testing.T) {
	last := -1
	for us := int64(0); us < 1<<20; us++ {
		at := bucket(us)
		if at != last && at != last+1 {
			t.Fatalf("%d us: bucket %d after %d", us, at, last)
		}
		last = at
		if high := upper(at); high < us || float64(high-us) > float64(us)/subBuckets {
			t.Fatalf("%d us are reported as %d", us, high)
		}
	}
	if found := bucket(1 << 60); found != buckets-1 {
		t.Errorf("beyond the last bucket: %d", found)
	}
}

func TestPercentilesAreThoseOfTheNearestRank(t *testing.T) {
	var h histogram
	for ms := 1; ms <= 100; ms++ {
		h.add(time.Duration(ms) * time.Microsecond)
	}
	found := h.report()
	for at, percent := range found.Percents {
		want := int64(percent + 0.99)
		if found.ValuesUs[at] != want {
			t.Errorf("%v %%: %d us, not %d", percent, found.ValuesUs[at], want)
		}
	}
	if found.MaxUs != 100 || found.Count != 100 {
		t.Errorf("max %d, count %d", found.MaxUs, found.Count)
	}
}

func TestAPercentileIsNeverAboveTheMaximum(t *testing.T) {
	var h histogram
	h.add(100_001 * time.Microsecond)
	for _, value := range h.report().ValuesUs {
		if value != 100_001 {
			t.Errorf("%d us", value)
		}
	}
}

func TestAnEmptyHistogramHasZeros(t *testing.T) {
	var h histogram
	found := h.report()
	if found.Count != 0 || len(found.ValuesUs) != len(found.Percents) || found.ValuesUs[50] != 0 {
		t.Errorf("%+v", found)
	}
}
