package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// A dispatcher runs the tasks of one person one after the other, in order, and those of different people side by side, with a few
// workers. People are distinguished by their normalized bare JID.
//
// A person whose queue is full pays alone, and so do those whose tasks wait for the database: if all workers wait, more are started.
// Only the bound of all queues together blocks the caller, and with it the socket.
type dispatcher struct {
	room *semaphore.Weighted // bytes of all queues

	mu          sync.Mutex
	changed     *sync.Cond            // there is a ready queue, or no task at all
	queues      map[string]*taskQueue // with tasks that wait or run, by bare JID
	first, last *taskQueue            // list of the queues that no worker has
	tasks       int                   // that wait or run
	workers     int
	closed      bool
}

// A taskQueue is the FIFO of one person.
type taskQueue struct {
	bare    string
	waiting []task
	next    *taskQueue // in the list of ready queues
}

// A task is a stanza to be handled, or a function to be run.
type task struct {
	run      func(context.Context)
	weight   int64
	priority taskPriority
	resource string // of presence: a newer task of the same resource may replace it
}

// A taskPriority says what happens to a task when its person's queue is full.
type taskPriority int

const (
	taskKept     taskPriority = iota // it is queued all the same
	taskRefused                      // enqueue returns false: the sender is due an answer
	taskPresence                     // it replaces the waiting task of the same resource; at most maxResources are kept
	taskDropped                      // it is dropped
)

const (
	workerCount  = 16
	maxWorkers   = 512                   // while all workers wait, for instance because another process has locked the database
	growInterval = 50 * time.Millisecond // for which a queue that is next may wait until more workers are started
	idleInterval = 5 * growInterval      // between two looks at whether a queue waits, while none does
	maxQueue     = 256                   // tasks that wait for one person
	maxAllQueues = 32 << 20              // bytes
	taskOverhead = 256                   // bytes, besides the stanza
	workerBatch  = 16                    // tasks of one person that a worker runs before it turns to the next
)

func newDispatcher() *dispatcher {
	d := &dispatcher{room: semaphore.NewWeighted(maxAllQueues), queues: make(map[string]*taskQueue)}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// enqueue queues a task for a person. It blocks while all queues together are full, until ctx is done. It returns false if the task
// has been refused.
func (d *dispatcher) enqueue(ctx context.Context, bare string, t task) (accepted bool) {
	t.weight += taskOverhead
	if d.room.Acquire(ctx, t.weight) != nil {
		return true // shutting down
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queues[bare]
	if q == nil {
		q = &taskQueue{bare: bare}
		d.queues[bare] = q
		d.makeReady(q)
	}
	if len(q.waiting) >= maxQueue && !d.makeRoom(q, t) {
		d.room.Release(t.weight)
		return t.priority != taskRefused
	}
	q.waiting = append(q.waiting, t)
	d.tasks++
	return true
}

// makeRoom reports whether a task is queued although its person's queue is full. It removes the task that the new one replaces. The
// caller holds mu.
func (d *dispatcher) makeRoom(q *taskQueue, t task) bool {
	if t.priority != taskPresence {
		return t.priority == taskKept
	}
	resources := 0
	for i, w := range q.waiting {
		if w.priority != taskPresence {
			continue
		}
		if w.resource == t.resource {
			d.room.Release(w.weight)
			q.waiting = slices.Delete(q.waiting, i, i+1)
			d.tasks--
			return true
		}
		resources++
	}
	return resources < maxResources
}

// dispatch runs a function among the tasks of a person. Like enqueue, it blocks while all queues together are full, so tasks of people must
// not call it: they are what makes room.
func (d *dispatcher) dispatch(ctx context.Context, bare string, f func(context.Context)) {
	d.enqueue(ctx, bare, task{run: f})
}

// run works until ctx is done; what is queued then is dropped.
func (d *dispatcher) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.closed = true
		d.changed.Broadcast()
	})
	defer stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	for next := (*taskQueue)(nil); ; {
		d.mu.Lock()
		for n := d.missingWorkers(next); n > 0; n-- {
			d.workers++
			workers.Go(func() { d.work(ctx) })
		}
		next = d.first
		d.mu.Unlock()
		pause := idleInterval
		if next != nil {
			pause = growInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// missingWorkers returns how many workers to start, given the queue that was next at the last look: if it still is, all workers wait. The
// caller holds mu.
func (d *dispatcher) missingWorkers(next *taskQueue) int {
	if d.workers == 0 || next != nil && d.first == next {
		return min(workerCount, maxWorkers-d.workers)
	}
	return 0
}

// work runs the tasks of queues that are ready, until the dispatcher is closed or there are more workers than tasks need.
func (d *dispatcher) work(ctx context.Context) {
	batch := make([]task, 0, workerBatch)
	for {
		d.mu.Lock()
		for d.first == nil && !d.closed && d.workers <= workerCount {
			d.changed.Wait()
		}
		if d.first == nil || d.closed {
			d.workers--
			d.mu.Unlock()
			return
		}
		q := d.first
		d.first, q.next = q.next, nil
		n := min(len(q.waiting), workerBatch)
		batch = append(batch[:0], q.waiting[:n]...)
		q.waiting = slices.Delete(q.waiting, 0, n)
		d.mu.Unlock()
		for _, t := range batch {
			t.run(ctx)
			d.room.Release(t.weight)
		}
		d.finish(q, n)
	}
}

// makeReady appends a queue to the ready ones. The caller holds mu.
func (d *dispatcher) makeReady(q *taskQueue) {
	if d.first == nil {
		d.first = q
	} else {
		d.last.next = q
	}
	d.last = q
	d.changed.Signal()
}

// finish returns a queue to the ready ones, or forgets it if it is empty.
func (d *dispatcher) finish(q *taskQueue, done int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks -= done
	if len(q.waiting) > 0 {
		d.makeReady(q)
	} else {
		delete(d.queues, q.bare)
	}
	if d.tasks == 0 {
		d.changed.Broadcast()
	}
}

// length returns the number of tasks that wait or run.
func (d *dispatcher) length() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tasks
}

// drain waits until there are no tasks, or ctx is done.
func (d *dispatcher) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.tasks > 0 && ctx.Err() == nil {
		d.changed.Wait()
	}
}

// isAlive reports whether a worker is free to run a task before ctx is done.
func (d *dispatcher) isAlive(ctx context.Context) bool {
	done := make(chan struct{})
	go d.dispatch(ctx, "", func(context.Context) { close(done) })
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
