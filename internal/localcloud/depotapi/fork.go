package depotapi

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"
)

// GitHub issues no OIDC token for a pull request from a fork. Depot offers an alternative for public repositories: the
// client claims to be a workflow run, receives a code, and prints the code to the run's public log while it exchanges
// the claim for a token. Depot invalidates the claim first, and then searches the log for up to half a minute.
//
// Source: depot/actions-public-oidc 1e83ae2, src/index.ts, src/types.ts, src/utils/dynamodb.ts, src/utils/github.ts.
//
// depot-go uses a constant URL (https://actions-public-oidc.depot.dev/claim), so only clients with a configurable URL
// can use this server.
const (
	claimPath    = "/actions-public-oidc/claim"
	exchangePath = "/actions-public-oidc/exchange/"
)

// Lifetimes of a claim (createClaim) and of a token (issueToken).
const (
	claimLifetime = 5 * time.Minute
	forkLifetime  = 5 * time.Minute
)

// logSearches is how often the log is searched for a code: 4 times in each of 4 validations.
const logSearches = 16

// challenge is a claim and the token issued for it.
type challenge struct {
	id, code   string
	aud        string
	repository string // owner/name, as claimed
	exchanged  bool
	token      string    // "" until it is issued
	expires    time.Time // of the claim, then of the token
}

// ClaimURL returns the URL at which a run of a fork's pull request requests a challenge.
func (s *Server) ClaimURL() string { return s.URL() + claimPath }

func (s *Server) handleFork(mux *http.ServeMux) {
	mux.HandleFunc("POST "+claimPath, s.claim)
	mux.HandleFunc("POST "+exchangePath+"{id}", s.exchange)
}

var (
	claimedRepository = regexp.MustCompile(`.+/.+`)
	claimedNumber     = regexp.MustCompile(`^\d+$`)
)

func (s *Server) claim(w http.ResponseWriter, r *http.Request) {
	claim := struct {
		Aud       string  `json:"aud"`
		EventName string  `json:"eventName"`
		Repo      string  `json:"repo"`
		RunID     string  `json:"runID"`
		Attempt   *string `json:"attempt"`
	}{Aud: "https://github.com"}
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&claim); err != nil {
		sendError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if claim.EventName != "pull_request" || !claimedRepository.MatchString(claim.Repo) ||
		!claimedNumber.MatchString(claim.RunID) || claim.Attempt != nil && !claimedNumber.MatchString(*claim.Attempt) {
		sendError(w, http.StatusBadRequest, "Invalid claim: [object Object]") // the issuer prints a list of objects
		return
	}
	c := &challenge{
		id: rand.Text(), code: rand.Text(), aud: claim.Aud, repository: claim.Repo, expires: time.Now().Add(claimLifetime),
	}
	s.mutex.Lock()
	s.forks[c.id] = c
	s.mutex.Unlock()
	s.note(r.Context(), func(call *Call) {
		if claim.Attempt != nil {
			call.Attempt = *claim.Attempt
		}
	})
	send(w, http.StatusOK, map[string]string{"challengeCode": c.code, "exchangeURL": s.URL() + exchangePath + c.id})
}

// exchange marks a claim as exchanged, and only then searches the log.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	c := s.forks[r.PathValue("id")]
	dead := c == nil || c.exchanged || time.Now().After(c.expires)
	if !dead {
		c.exchanged = true
	}
	s.mutex.Unlock()
	if dead {
		sendError(w, http.StatusInternalServerError, "challenge already used or not found")
		return
	}
	for n := 1; s.options.FindInLog != nil && !s.options.FindInLog(c.code); n++ {
		if n == logSearches {
			sendError(w, http.StatusInternalServerError, "no validated jobs")
			return
		}
		select {
		case <-time.After(s.options.LogInterval):
		case <-r.Context().Done():
			return
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	c.token, c.expires = "fork_"+rand.Text(), time.Now().Add(forkLifetime)
	_, _ = fmt.Fprint(w, c.token)
}

func sendError(w http.ResponseWriter, status int, message string) {
	send(w, status, map[string]string{"error": message})
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
