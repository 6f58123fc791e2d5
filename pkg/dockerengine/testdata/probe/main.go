// Probe is the program in test images. Its first argument selects a command.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	argument := ""
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	switch os.Args[1] {
	case "hello":
		fmt.Println("hello", argument)
	case "exit":
		code, _ := strconv.Atoi(argument)
		os.Exit(code)
	case "streams":
		fmt.Print("to out")
		fmt.Fprint(os.Stderr, "to err")
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "env":
		fmt.Print(os.Getenv(argument))
	case "where":
		dir, _ := os.Getwd()
		fmt.Print(os.Getuid(), ":", os.Getgid(), " ", dir)
	case "spam": // writes the given number of megabytes
		count, _ := strconv.Atoi(argument)
		lines := bytes.Repeat(append(bytes.Repeat([]byte("spam "), 204), "...\n"...), 1<<10)
		for range count {
			os.Stdout.Write(lines)
		}
	case "trap": // prints received signals, and exits on SIGTERM
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		fmt.Println("ready")
		for s := range signals {
			fmt.Println(s)
			if s == syscall.SIGTERM {
				os.Exit(3)
			}
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "sleep":
		time.Sleep(time.Hour)
	case "child": // starts a child that keeps the output open, and exits
		child := exec.Command(os.Args[0], "sleep")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		fmt.Println("left", child.Start() == nil)
	case "serve": // a minimal HTTP server
		listener, err := net.Listen("tcp", ":"+argument)
		for err == nil {
			var conn net.Conn
			if conn, err = listener.Accept(); err == nil {
				conn.Read(make([]byte, 4096))
				fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nserved")
				conn.Close()
			}
		}
		fmt.Println(err)
	case "check":
		conn, err := net.Dial("tcp", "127.0.0.1:"+argument)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		fmt.Print(strings.Fields(string(answer))[1:3])
	case "memory":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "fork": // starts processes until that fails
		for i := range 10000 {
			if err := exec.Command(os.Args[0], "sleep").Start(); err != nil {
				fmt.Println("limited", i < 9999)
				return
			}
		}
	case "write":
		fmt.Print(os.WriteFile(argument, []byte("x"), 0o600) == nil)
	case "read":
		content, err := os.ReadFile(argument)
		fmt.Print(string(content), err)
	case "status": // prints a field of /proc/self/status; see proc(5)
		content, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, argument+":") {
				fmt.Print(strings.Join(strings.Fields(line)[1:], " "))
			}
		}
	case "terminal": // prints the terminal's size, each new size, and typed lines
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, syscall.SIGWINCH, syscall.SIGINT)
		print := func() {
			size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				fmt.Println("no terminal")
				return
			}
			fmt.Printf("%dx%d\n", size.Col, size.Row)
		}
		go func() {
			for s := range resized {
				if s == syscall.SIGINT {
					fmt.Println("interrupted")
					os.Exit(130)
				}
				print()
			}
		}()
		print()
		for {
			var word string
			if _, err := fmt.Scanln(&word); err != nil {
				os.Exit(9)
			}
			fmt.Println("typed", word)
		}
	}
}
