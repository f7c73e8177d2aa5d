// A receiver of callbacks in Go, with the standard library only.
//
//	WEBHOOK_SECRET=whsec_... PORT=8000 go run .
package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	toleranceSeconds = 300
	maxBodyBytes     = 1 << 20
	maxSeen          = 100_000
)

// verify says why a callback does not verify; nil if it does. body is the bytes as they came.
func verify(header http.Header, body, key []byte) error {
	id, timestamp, given := header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature")
	if id == "" || timestamp == "" || given == "" {
		return errors.New("a header is missing")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("webhook-timestamp is not a number")
	}
	if age := time.Now().Unix() - seconds; age < -toleranceSeconds || age > toleranceSeconds {
		return errors.New("webhook-timestamp is too old, or the clock is off")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, one := range strings.Fields(given) {
		if hmac.Equal([]byte(one), []byte(expected)) {
			return nil
		}
	}
	return errors.New("no signature matches")
}

// memory knows the webhook-ids of late. Yours: a table with a unique key.
type memory struct {
	mutex sync.Mutex
	known map[string]bool
	order []string
}

// first reports whether an id was not there before, and remembers it.
func (m *memory) first(id string) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.known[id] {
		return false
	}
	m.known[id] = true
	m.order = append(m.order, id)
	if len(m.order) > maxSeen {
		delete(m.known, m.order[0])
		m.order = m.order[1:]
	}
	return true
}

// work is yours; it runs after the answer.
func work(id string, body []byte) error {
	_, err := fmt.Println("callback", id, string(body))
	return err
}

func main() {
	secret, found := strings.CutPrefix(strings.TrimSpace(os.Getenv("WEBHOOK_SECRET")), "whsec_")
	key, err := base64.StdEncoding.DecodeString(secret)
	if err != nil || !found || len(key) < 24 {
		log.Fatal("WEBHOOK_SECRET must be the secret you were given: whsec_...")
	}
	seen := memory{known: map[string]bool{}}
	http.HandleFunc("POST /callbacks", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		if err != nil {
			http.Error(w, "the body is too long, or broke off", http.StatusRequestEntityTooLarge)
			return
		}
		if err := verify(r.Header, body, key); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) {
			http.Error(w, "the body is not JSON", http.StatusBadRequest)
			return
		}
		id := r.Header.Get("webhook-id")
		if seen.first(id) { // store the callback here, before the answer: it does not come again
			go func() {
				if err := work(id, body); err != nil {
					log.Print(id, ": ", err)
				}
			}()
		}
		w.WriteHeader(http.StatusNoContent) // also to one that came before
	})
	server := http.Server{
		Addr:        "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "8000"),
		ReadTimeout: 10 * time.Second,
	}
	listener, err := net.Listen("tcp", server.Addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s/callbacks\n", server.Addr)
	log.Fatal(server.Serve(listener))
}
