// Command probe is what the end-to-end tests run inside pods: it waits, serves,
// or sends a request and prints what came back.
//
//	probe wait                 until it is told to stop
//	probe serve PORT           answers every request with its headers, /bytes?n=N with N bytes
//	probe get URL [TIMEOUT]    one GET; prints status and body, exits 1 without an answer
//	probe load URL N           N GETs on one connection; prints latencies as JSON, in µs
//	probe lookup NAME          the addresses of a name
//	probe exit CODE            exits
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		args = []string{"wait"}
	}
	switch {
	case args[0] == "wait":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
		<-stop
		return nil
	case args[0] == "serve" && len(args) == 2:
		http.HandleFunc("/bytes", bytes)
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _ = r.Header.Write(w) })
		return http.ListenAndServe(":"+args[1], nil)
	case args[0] == "get" && len(args) >= 2:
		return get(args[1:])
	case args[0] == "load" && len(args) == 3:
		return load(args[1], args[2])
	case args[0] == "lookup" && len(args) == 2:
		addrs, err := net.LookupHost(args[1])
		for _, a := range addrs {
			fmt.Println(a)
		}
		return err
	case args[0] == "exit" && len(args) == 2:
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		os.Exit(code)
	}
	return fmt.Errorf("usage: probe wait | serve PORT | get URL [TIMEOUT] | load URL N | lookup NAME | exit CODE")
}

func get(args []string) error {
	client := http.Client{Timeout: 5 * time.Second}
	if len(args) > 1 {
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		client.Timeout = d
	}
	answer, err := client.Get(args[0])
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	_, err = io.Copy(os.Stdout, io.LimitReader(answer.Body, 1<<20))
	return err
}

func bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 {
		http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
		return
	}
	block := make([]byte, 256<<10)
	for n > 0 {
		m, err := w.Write(block[:min(n, len(block))])
		if err != nil {
			return
		}
		n -= m
	}
}

func load(url, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return fmt.Errorf("load: %q: want a number of requests", count)
	}
	times := make([]time.Duration, n)
	begun := time.Now()
	for i := range times {
		at := time.Now()
		answer, err := http.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s %v", url, answer.Status, err)
		}
		times[i] = time.Since(at)
	}
	rate := float64(n) / time.Since(begun).Seconds()
	slices.Sort(times)
	_, err = fmt.Printf("{\"p50\": %d, \"p99\": %d, \"rate\": %.0f}\n", times[n/2].Microseconds(), times[n*99/100].Microseconds(), rate)
	return err
}
