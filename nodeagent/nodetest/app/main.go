// Program app is what the node agent's tests run in containers. Each argument is a
// step: `print hello`, `sleep 1h`, `exit 3` come as "print=hello" "sleep=1h" "exit=3".
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, step := range os.Args[1:] {
		verb, arg, _ := strings.Cut(step, "=")
		if err := do(verb, arg); err != nil {
			fmt.Fprintln(os.Stderr, step+":", err)
			os.Exit(1)
		}
	}
}

func do(verb, arg string) error {
	switch verb {
	case "print":
		fmt.Println(arg)
	case "complain":
		fmt.Fprintln(os.Stderr, arg)
	case "sleep": // ends with SIGTERM
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		select {
		case s := <-stop:
			fmt.Println("got", s)
			os.Exit(0)
		case <-time.After(d):
		}
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		fmt.Println(arg)
		time.Sleep(time.Hour)
	case "exit":
		code, _ := strconv.Atoi(arg)
		os.Exit(code)
	case "env":
		fmt.Printf("%s=%s\n", arg, os.Getenv(arg))
	case "cat":
		b, err := os.ReadFile(arg)
		if err != nil {
			return err
		}
		fmt.Print(string(b))
	case "write":
		name, text, _ := strings.Cut(arg, ":")
		return os.WriteFile(name, []byte(text), 0o644)
	case "stat":
		st, err := os.Stat(arg)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %v %d:%d\n", arg, st.Mode(), sys.Uid, sys.Gid)
	case "id":
		groups, _ := os.Getgroups()
		fmt.Println("uid", os.Getuid(), "gid", os.Getgid(), "groups", groups)
	case "host":
		name, err := os.Hostname()
		fmt.Println(name)
		return err
	case "once": // exits with 1 the first time, by a file
		if _, err := os.Stat(arg); err == nil {
			return nil
		}
		if err := os.WriteFile(arg, nil, 0o644); err != nil {
			return err
		}
		os.Exit(1)
	case "tick":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			fmt.Println("tick", i)
			time.Sleep(d)
		}
	case "echo": // standard input back, in capitals
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			fmt.Println(strings.ToUpper(s.Text()))
		}
	case "eat": // memory
		n, _ := strconv.Atoi(arg)
		b := make([]byte, n<<20)
		for i := range b {
			b[i] = 1
		}
		fmt.Println(len(b))
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") })
		return http.ListenAndServe(arg, nil)
	default:
		return fmt.Errorf("no such step")
	}
	return nil
}
