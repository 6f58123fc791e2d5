package github

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// LFSObjects is the prefix of the paths of Git LFS objects on the asset host.
const LFSObjects = "/alambic/media/"

const lfsType = "application/vnd.git-lfs+json"

var lfsOID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// lfsObjectFile returns the file with a Git LFS object in the repository's git directory, where git-lfs keeps it.
func (r Repository) lfsObjectFile(req *http.Request, oid string) (string, error) {
	dir, err := r.git(req.Context(), "rev-parse", "--path-format=absolute", "--git-common-dir")
	return filepath.Join(dir, "lfs/objects", oid[:2], oid[2:4], oid), err
}

type lfsObject struct {
	OID     string               `json:"oid"`
	Size    int64                `json:"size"`
	Actions map[string]lfsAction `json:"actions,omitempty"`
	Error   *lfsError            `json:"error,omitempty"`
}

type lfsAction struct {
	Href      string `json:"href"`
	ExpiresIn int    `json:"expires_in"`
}

type lfsError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// serveLFSBatch serves downloads of the Batch API. It answers uploads like a token without write access.
// https://github.com/git-lfs/git-lfs/blob/v3.8.1/docs/api/batch.md
func (s *Server) serveLFSBatch(w http.ResponseWriter, r *http.Request, owner, name string) {
	repository, status := s.authorize(r, owner, name, readContents)
	if _, ok := requestToken(r); status == http.StatusNotFound && !ok {
		status = http.StatusUnauthorized
	}
	var request struct {
		Operation string      `json:"operation"`
		Transfers []string    `json:"transfers"`
		HashAlgo  string      `json:"hash_algo"`
		Objects   []lfsObject `json:"objects"`
	}
	body := json.NewDecoder(r.Body)
	switch {
	case r.Method != http.MethodPost:
		sendLFS(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
	case status == http.StatusUnauthorized:
		w.Header().Set("LFS-Authenticate", `Basic realm="GitHub"`)
		sendLFS(w, status, map[string]string{"message": "Credentials needed"})
	case status != http.StatusOK:
		sendLFS(w, status, map[string]string{"message": http.StatusText(status)})
	case !strings.HasPrefix(r.Header.Get("Accept"), lfsType):
		const message = "The Accept header needs to be " + lfsType
		sendLFS(w, http.StatusNotAcceptable, map[string]string{"message": message})
	case !strings.HasPrefix(r.Header.Get("Content-Type"), lfsType),
		body.Decode(&request) != nil, request.Operation == "", len(request.Objects) == 0,
		request.HashAlgo != "" && request.HashAlgo != "sha256":
		sendLFS(w, http.StatusUnprocessableEntity, map[string]string{"message": "Invalid request"})
	case request.Operation != "download":
		sendLFS(w, http.StatusForbidden, map[string]string{"message": "You must have push access to upload LFS objects"})
	default:
		for i := range request.Objects {
			s.describeLFSObject(r, repository, &request.Objects[i])
		}
		sendLFS(w, http.StatusOK, map[string]any{"transfer": "basic", "objects": request.Objects, "hash_algo": "sha256"})
	}
}

// describeLFSObject adds the URL of an object, or an error, to its description.
func (s *Server) describeLFSObject(r *http.Request, repository Repository, object *lfsObject) {
	if !lfsOID.MatchString(object.OID) || object.Size < 0 {
		object.Error = &lfsError{http.StatusUnprocessableEntity, "Validation error"}
		return
	}
	file, err := repository.lfsObjectFile(r, object.OID)
	if err == nil {
		_, err = os.Stat(file)
	}
	if err != nil {
		const message = "Object does not exist on the server or you don't have permissions to access it"
		object.Error = &lfsError{http.StatusNotFound, message}
		return
	}
	path := LFSObjects + repository.fullName() + "/" + object.OID
	object.Actions = map[string]lfsAction{"download": {s.signedURL(path, object.OID, octetStream, 5*time.Minute), 3600}}
}

// serveLFSObject serves the object at a path of the asset host. The URL's signature has been verified.
func (s *Server) serveLFSObject(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, LFSObjects), "/")
	for _, repository := range s.currentOptions().Repositories {
		if len(parts) != 3 || !repository.isNamed(parts[0]+"/"+parts[1]) || !lfsOID.MatchString(parts[2]) {
			continue
		}
		file, err := repository.lfsObjectFile(r, parts[2])
		if err != nil {
			break
		}
		w.Header().Set("Content-Type", octetStream)
		http.ServeFile(w, r, file)
		return
	}
	sendStorageError(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
}

func sendLFS(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", lfsType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails if the client has disconnected
}
