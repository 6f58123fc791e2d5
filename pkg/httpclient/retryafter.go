package httpclient

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfter returns the wait that a response requests, or 0 for none: the longest of Retry-After and Retry-After-*,
// each in seconds or as an HTTP date. Daytona appends the name of the exceeded limit to the header's name.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	var longest time.Duration
	for name, values := range header {
		if name != "Retry-After" && !strings.HasPrefix(name, "Retry-After-") {
			continue
		}
		for _, value := range values {
			if seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && !math.IsNaN(seconds) {
				longest = max(longest, time.Duration(min(max(seconds, 0), maxSeconds)*float64(time.Second)))
			} else if at, err := http.ParseTime(value); err == nil {
				longest = max(longest, at.Sub(now))
			}
		}
	}
	return longest
}

const maxSeconds = 1e9 // keeps a duration in range: 31 years

// GitHubRateLimit is a [Policy.RateLimit] for GitHub, which returns 403 or 429 for its primary and secondary limits.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func GitHubRateLimit(response *http.Response, now time.Time) (time.Duration, bool) {
	if response.StatusCode != http.StatusForbidden && response.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	reset, err := strconv.ParseInt(response.Header.Get("X-RateLimit-Reset"), 10, 64)
	if err == nil && response.Header.Get("X-RateLimit-Remaining") == "0" {
		// Add a second, because the reset time is rounded down.
		return max(time.Unix(reset, 0).Sub(now), 0) + time.Second, true
	}
	if wait := RetryAfter(response.Header, now); wait > 0 || response.StatusCode == http.StatusTooManyRequests {
		return wait, true
	}
	var answer struct {
		Message string `json:"message"`
	}
	data, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(data))
	if err != nil || json.Unmarshal(data, &answer) != nil {
		return 0, false
	}
	// A secondary limit may come without a header. GitHub documents the message.
	return 0, strings.Contains(strings.ToLower(answer.Message), "rate limit")
}
