// Command service runs in the containers of the tests. It is a server with several kinds of misbehavior, and needs no
// other files.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "print":
			fmt.Println(strings.Join(os.Args[2:], " "))
			return
		case "flood":
			chunk := []byte(strings.Repeat(strings.Repeat("x", 1023)+"\n", 1024))
			for range 1024 { // 1 GiB
				if _, err := os.Stdout.Write(chunk); err != nil {
					os.Exit(1)
				}
			}
			return
		case "hang":
			signal.Ignore(syscall.SIGTERM)
			time.Sleep(time.Hour)
		case "health":
			response, err := http.Get("http://127.0.0.1:8080/health")
			if err != nil || response.StatusCode != http.StatusOK {
				fmt.Println("not healthy", err)
				os.Exit(1)
			}
			return
		case "migrate": // a service that runs once
			fmt.Println("migrated")
			code, _ := strconv.Atoi(os.Args[2])
			os.Exit(code)
		case "once-up": // prints up only on the first start
			if _, err := os.OpenFile("/tmp/started", os.O_CREATE|os.O_EXCL, 0o600); err == nil {
				fmt.Println("up")
			}
			waitForEnd()
			return
		case "spam": // prints 9 MiB before it is ready
			line := strings.Repeat("x", 1023) + "\n"
			fmt.Print("first line\n", strings.Repeat(line, 9<<10), "now ready\n")
			waitForEnd()
			fmt.Println("bye")
			return
		case "fail":
			fmt.Fprintln(os.Stderr, "cannot start")
			os.Exit(3)
		}
	}
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Version", "7")
		fmt.Fprintf(w, `{"status":"ok","mode":%q}`, os.Getenv("MODE"))
	})
	http.Handle("/moved", http.RedirectHandler("/health", http.StatusFound))
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.Header.Get("X-Ask"), " ", r.Host)
	})
	go func() {
		fmt.Println("listening on 8080")
		fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
		os.Exit(4)
	}()
	waitForEnd()
	fmt.Println("ending")
	if os.Getenv("STUBBORN") != "" {
		time.Sleep(time.Hour)
	}
	if os.Getenv("FAIL") != "" {
		os.Exit(5)
	}
}

func waitForEnd() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
}
