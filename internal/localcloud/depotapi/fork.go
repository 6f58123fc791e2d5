package depotapi

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Pull requests from forks of public repositories get no OIDC token from GitHub. Depot has a second way for them:
// the client claims to be a certain workflow run and is given a code, prints the code into the run's public log,
// and asks until Depot has seen it there; then it gets a token for the run's repository.
//
// depot-go's address for it is a constant (https://actions-public-oidc.depot.dev/claim): only a client that can be
// pointed elsewhere meets this one.
const (
	claimPath    = "/actions-public-oidc/claim"
	exchangePath = "/actions-public-oidc/exchange/"
)

// challenge is one claim, and the token that answers it.
type challenge struct {
	repository string // owner/name, as claimed
	asked      int    // how often the client has asked for its token
	token      string // empty until the code has been seen
	expires    time.Time
}

// exchangeAfter is how many times a client asks in vain: nobody reads a log here, so the code is "seen" after a
// while.
const exchangeAfter = 2

// ClaimURL is where a workflow run of a fork's pull request asks for its challenge.
func (s *Server) ClaimURL() string { return s.URL() + claimPath }

func (s *Server) handleFork(mux *http.ServeMux) {
	mux.HandleFunc("POST "+claimPath, s.claim)
	mux.HandleFunc("POST "+exchangePath+"{code}", s.exchange)
}

func (s *Server) claim(w http.ResponseWriter, r *http.Request) {
	var claim struct {
		Aud       string `json:"aud"`
		EventName string `json:"eventName"`
		Repo      string `json:"repo"`
		RunID     string `json:"runID"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&claim); err != nil {
		sendError(w, http.StatusBadRequest, "the claim is not JSON")
		return
	}
	for what, ok := range map[string]bool{
		"aud is not " + Audience:        claim.Aud == Audience,
		"eventName is not pull_request": claim.EventName == "pull_request",
		"repo is not owner/name":        strings.Count(claim.Repo, "/") == 1,
		"runID is missing":              claim.RunID != "",
	} {
		if !ok {
			sendError(w, http.StatusBadRequest, what)
			return
		}
	}
	code := rand.Text()
	s.mutex.Lock()
	s.forks[code] = &challenge{repository: claim.Repo, expires: time.Now().Add(5 * time.Minute)}
	s.mutex.Unlock()
	send(w, http.StatusOK, map[string]string{"challengeCode": code, "exchangeURL": s.URL() + exchangePath + code})
}

func (s *Server) exchange(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	c := s.forks[r.PathValue("code")]
	var token string
	if c != nil {
		if c.asked++; c.asked > exchangeAfter && c.token == "" {
			c.token = "fork_" + rand.Text()
		}
		token = c.token
	}
	s.mutex.Unlock()
	switch {
	case c == nil:
		sendError(w, http.StatusNotFound, "no such challenge")
	case token == "":
		sendError(w, http.StatusForbidden, "the challenge was not found in the log yet")
	default:
		_, _ = fmt.Fprint(w, token)
	}
}

func sendError(w http.ResponseWriter, status int, message string) {
	send(w, status, map[string]string{"error": message})
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
