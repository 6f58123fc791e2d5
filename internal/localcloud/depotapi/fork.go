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

// GitHub issues no OIDC token for a pull request from a fork. Depot offers an alternative for public repositories: the
// client claims to be a workflow run, receives a code, prints the code to the run's public log, and polls until Depot
// has found the code in the log. Depot then returns a token for the run's repository.
//
// depot-go uses a constant URL (https://actions-public-oidc.depot.dev/claim), so only clients with a configurable URL
// can use this server.
const (
	claimPath    = "/actions-public-oidc/claim"
	exchangePath = "/actions-public-oidc/exchange/"
)

// challenge is a claim and the token issued for it.
type challenge struct {
	repository string // owner/name, as claimed
	requests   int    // number of exchange requests
	token      string // "" until it is issued
	expires    time.Time
}

// exchangeAfter is the number of exchange requests that the server rejects before it issues the token. The server does
// not read the log.
const exchangeAfter = 2

// ClaimURL returns the URL at which a run of a fork's pull request requests a challenge.
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
		sendError(w, http.StatusBadRequest, "the claim is not valid JSON")
		return
	}
	for problem, ok := range map[string]bool{
		"aud is not " + Audience:        claim.Aud == Audience,
		"eventName is not pull_request": claim.EventName == "pull_request",
		"repo is not owner/name":        strings.Count(claim.Repo, "/") == 1,
		"runID is missing":              claim.RunID != "",
	} {
		if !ok {
			sendError(w, http.StatusBadRequest, problem)
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
		if c.requests++; c.requests > exchangeAfter && c.token == "" {
			c.token = "fork_" + rand.Text()
		}
		token = c.token
	}
	s.mutex.Unlock()
	switch {
	case c == nil:
		sendError(w, http.StatusNotFound, "challenge not found")
	case token == "":
		sendError(w, http.StatusForbidden, "the challenge is not in the log yet")
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
