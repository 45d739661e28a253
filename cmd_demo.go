package main

import (
	"context"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const demoDomain = "webstatus.verona.example"

// A scene is a presence stanza that an actor sends from a resource, and the PEP items that the actor publishes with it.
type scene struct {
	resource string
	typ      string // the type attribute: "unavailable", or empty
	show     string
	status   string
	priority string
	pep      []pepItem
}

// A pepItem is what an actor publishes at a PEP node of rich presence (XEP-0163 §3).
type pepItem struct {
	node    string
	content string // of the payload, as XML; empty to end it
}

// payload returns an element in the namespace of the node, with the last part of its name.
func (i pepItem) payload() string {
	name := path.Base(i.node)
	return "<" + name + " xmlns='" + i.node + "'>" + i.content + "</" + name + ">"
}

// An actor is a simulated user, who plays the scenes in a loop.
type actor struct {
	jid    string
	nick   string
	fields string        // form fields of the registration (XEP-0077), as XML
	pause  time.Duration // between scenes
	scenes []scene

	mu    sync.Mutex
	now   map[string]scene   // current scene of each available resource
	items map[string]pepItem // last item of each PEP node
}

// demoActors returns the simulated users of the demo.
func demoActors() []*actor {
	const message, address, nick = "<show_status_msg>1</show_status_msg>", "<show_full_jid>1</show_full_jid>", "<show_nick>1</show_nick>"
	const seen, clients = "<show_last_seen>1</show_last_seen>", "<show_resources>1</show_resources>"
	const rich = "<show_activity>1</show_activity><show_mood>1</show_mood><show_tune>1</show_tune>"
	return []*actor{
		{jid: "juliet@verona.example", nick: "Juliet", fields: message + address + nick + rich, pause: 4 * time.Second, scenes: []scene{
			{resource: "balcony", status: "On the balcony, come by", pep: []pepItem{{nsActivity, "<relaxing/>"}, {nsMood, "<in_love/>"}, {nsTune, "<artist>Gounod</artist><title>Je veux vivre</title>"}}},
			{resource: "balcony", show: "chat", status: "Talk to me!", pep: []pepItem{{nsActivity, "<talking/>"}, {nsTune, ""}}},
			{resource: "balcony", show: "away", status: "Back after the ball", pep: []pepItem{{nsActivity, "<exercising><dancing/></exercising>"}, {nsMood, "<excited/>"}}},
			{resource: "balcony", typ: "unavailable"},
		}},
		{jid: "romeo@verona.example", nick: "Romeo", fields: message + nick + clients, pause: 5 * time.Second, scenes: []scene{
			{resource: "orchard", status: "In the orchard", priority: "1"},
			{resource: "phone", show: "dnd", status: "Climbing, cannot type", priority: "5"},
			{resource: "phone", typ: "unavailable"},
			{resource: "orchard", show: "away", status: "Looking for the friar", priority: "1"},
		}},
		{jid: "mercutio@verona.example", nick: "Mercutio", fields: message + nick + seen, pause: 7 * time.Second, scenes: []scene{
			{resource: "square", show: "chat", status: "Ask for me tomorrow"},
			{resource: "square", show: "dnd", status: "A plague o’ both your houses"},
			{resource: "square", typ: "unavailable"},
		}},
		{jid: "nurse@verona.example", pause: 6 * time.Second, scenes: []scene{
			{resource: "house"},
			{resource: "house", show: "xa"},
			{resource: "house", show: "away"},
		}},
		{jid: "friar@verona.example", fields: message, pause: 9 * time.Second, scenes: []scene{
			{resource: "cell", show: "away", status: "Gathering herbs"},
			{resource: "cell", show: "dnd", status: "A wedding, in secret"},
			{resource: "cell", status: "Wisely and slow"},
			{resource: "cell", typ: "unavailable"},
		}},
	}
}

func demoCommand() *cobra.Command {
	var conf config
	var nodes int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything against a built-in XMPP server with simulated users",
		Long: `Run everything, with a temporary database, against a built-in XMPP server with five simulated users. The demo needs no XMPP server and
no configuration. Without --listen, it uses a free port if the default port is in use.

With --nodes, run several nodes on a temporary PostgreSQL database, each in its own process, and show them side by side on a page on which
they can be killed and started again. The nodes listen on free ports of 127.0.0.1. PostgreSQL must be installed, but need not be running.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			conf.resolveListen(problems)
			conf.resolveBaseURL(problems)
			log := conf.logger(problems, cmd.ErrOrStderr())
			if nodes < 0 || nodes > maxDemoNodes {
				problems.add("nodes", "%d is not between 0 and %d", nodes, maxDemoNodes)
			}
			if nodes > 0 && conf.baseURL != "" {
				problems.add("base-url", "cannot be combined with --nodes: each node has a URL of its own")
			}
			if err := problems.orNil(); err != nil {
				return err
			}
			listener, err := listenAnyPort(conf.listen, !cmd.Flags().Changed("listen"))
			if err != nil {
				return err
			}
			defer listener.Close()
			if nodes > 0 {
				return demoNodes(cmd.Context(), conf, nodes, listener, cmd.OutOrStdout(), cmd.ErrOrStderr(), log)
			}
			return demo(cmd.Context(), conf, listener, cmd.OutOrStdout(), log)
		}),
	}
	conf.webFlags(cmd.Flags())
	conf.logFlags(cmd.Flags(), "warn")
	cmd.Flags().IntVar(&nodes, "nodes", 0, "`number` of nodes on a temporary PostgreSQL database; 0 for a single node with an SQLite file")
	return cmd
}

// listenAnyPort listens on an address or, if that is not available and anyPort is true, on a free port.
func listenAnyPort(address string, anyPort bool) (net.Listener, error) {
	listener, err := listen(address, "listen")
	if err != nil && anyPort {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return listener, err
}

// demo runs the component, the web server and a loopback server with a temporary database until ctx is done.
func demo(ctx context.Context, conf config, listener net.Listener, out io.Writer, log *slog.Logger) error {
	if conf.baseURL == "" {
		conf.baseURL = "http://" + listener.Addr().String()
	}
	dir, err := os.MkdirTemp("", "webstatus-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // best effort
	db, err := openDatabase(ctx, filepath.Join(dir, "webstatus.db"), true)
	if err != nil {
		return err
	}
	defer db.Close()
	l, err := newLoopback(demoDomain, "demo")
	if err != nil {
		return err
	}
	component := componentConfig{
		domain: demoDomain, secret: l.secret, servers: []string{l.address()}, connections: 1, allow: allowList{"*"}, jidLinks: true, name: "Web presence",
		baseURL: strings.TrimRight(conf.baseURL, "/"), linkTimes: defaultLinkTimes, syncTimes: defaultSyncTimes, log: log,
	}
	cast := demoActors()
	middleware, err := demoPage(cast)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		l.serve(ctx, cast, 1, func() { printDemoURLs(out, component.baseURL, cast) })
		return nil
	})
	g.Go(func() error {
		return serveOn(ctx, listeners{web: listener}, db, websiteConfig{frameAncestors: "*"}, component, middleware)
	})
	return g.Wait()
}

// printDemoURLs prints the URLs of the demo.
func printDemoURLs(out io.Writer, baseURL string, cast []*actor) {
	fmt.Fprintf(out, "Five simulated users come and go on a built-in XMPP server.\n\n")
	fmt.Fprintf(out, "  everything    %s/demo\n", baseURL)
	fmt.Fprintf(out, "  how to join   %s/\n", baseURL)
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		fmt.Fprintf(out, "  %-12s  %s/status/%s\n", name, baseURL, encodeJID(a.jid))
	}
	fmt.Fprintf(out, "\nAppend .json to a user's URL for the status as JSON. Press Ctrl-C to stop.\n")
}

// allPath returns the path of the status page of all actors.
func allPath(cast []*actor) string {
	var ids []string
	for _, a := range cast {
		ids = append(ids, encodeJID(a.jid))
	}
	return statusPath + strings.Join(ids, ",")
}

// demoPage returns middleware that adds /demo, a page that shows the actors in every format.
func demoPage(cast []*actor) (func(http.Handler) http.Handler, error) {
	t, err := template.ParseFS(embeddedTemplates, "demo.html")
	if err != nil {
		return nil, err
	}
	type person struct{ Name, Page string }
	var data struct {
		People []person
		All    string // address of all of them
		Styles []badgeStyle
	}
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		data.People = append(data.People, person{strings.ToUpper(name[:1]) + name[1:], statusPath + encodeJID(a.jid)})
	}
	data.All, data.Styles = allPath(cast), []badgeStyle{"flat", styleFlatSquare, stylePlastic, styleDot}
	var page strings.Builder
	if err := t.Execute(&page, data); err != nil {
		return nil, err
	}
	return func(website http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", website)
		mux.HandleFunc("GET /demo", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = headerHTML
			io.WriteString(rw, page.String()) // fails only if the client is gone
		})
		return mux
	}, nil
}
