// Command probe is what the end-to-end tests run inside pods: it waits, serves,
// or sends a request and prints what came back.
//
//	probe wait                 until it is told to stop
//	probe serve PORT           answers every request with its headers
//	probe get URL [TIMEOUT]    one GET; prints status and body, exits 1 without an answer
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
		return http.ListenAndServe(":"+args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = r.Header.Write(w)
		}))
	case args[0] == "get" && len(args) >= 2:
		return get(args[1:])
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
	return fmt.Errorf("usage: probe wait | serve PORT | get URL [TIMEOUT] | lookup NAME | exit CODE")
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
