import '@xyflow/react/dist/style.css';
import dagre from '@dagrejs/dagre';
import { useQueries } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import {
  Background,
  Controls,
  type Edge,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlow,
  type ReactFlowInstance,
} from '@xyflow/react';
import { useEffect, useMemo, useRef, useState } from 'react';
import { read, type Workflow } from '~/api/queries';
import { theme } from '~/app/theme';
import { Foreign, StatusBadge, statusTone } from '~/ui/data';
import s from './Workflow.module.css';

type Data = { app: string; workflow: Workflow; self: boolean };
const WIDTH = 230;
const HEIGHT = 78;
const FIT = { maxZoom: 1, padding: 0.2 };

/** Who started this workflow, what it started, and what was forked from what. */
export function Lineage(props: { app: string; workflow: Workflow; below: Workflow[]; forks: Workflow[] }) {
  const { app, workflow } = props;
  const above = [...new Set([workflow.parentWorkflowId, workflow.forkedFrom].filter((id) => id !== null))];
  const found = useQueries({ queries: above.map((id) => read.workflow(app, id)) });
  const ancestors = found.map((query) => query.data).filter((each) => each !== undefined);
  const { nodes, edges } = useMemo(
    () => layout(app, workflow, ancestors, props.below, props.forks),
    [app, workflow, ancestors, props.below, props.forks],
  );
  const scheme = theme();
  const [flow, setFlow] = useState<ReactFlowInstance<Node<Data>> | null>(null);
  const moved = useRef(false);
  // Relatives arrive one after the other: all of them are shown, until somebody chose what to look at.
  // biome-ignore lint/correctness/useExhaustiveDependencies: for each number of nodes
  useEffect(() => {
    if (!moved.current) void flow?.fitView(FIT);
  }, [flow, nodes.length]);
  return (
    <div className={s.graph}>
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={TYPES}
        colorMode={scheme}
        fitView
        fitViewOptions={FIT}
        onInit={setFlow}
        onMoveStart={(event) => {
          if (event) moved.current = true;
        }}
        minZoom={0.1}
        nodesDraggable={false}
        nodesConnectable={false}
        edgesFocusable={false}
        proOptions={{ hideAttribution: true }}
        aria-label="Children and forks"
      >
        <Background gap={22} />
        <Controls showInteractive={false} />
      </ReactFlow>
    </div>
  );
}

function layout(app: string, self: Workflow, ancestors: Workflow[], children: Workflow[], forks: Workflow[]) {
  const all = new Map<string, Workflow>();
  for (const each of [self, ...ancestors, ...children, ...forks]) all.set(each.workflowId, each);
  const graph = new dagre.graphlib.Graph().setGraph({ rankdir: 'LR', nodesep: 18, ranksep: 70 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of all.keys()) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  const edges: Edge[] = [];
  for (const each of all.values()) {
    const add = (from: string | null, kind: 'child' | 'fork') => {
      if (from === null || !all.has(from)) return;
      graph.setEdge(from, each.workflowId);
      edges.push({
        id: `${kind} ${from} ${each.workflowId}`,
        source: from,
        target: each.workflowId,
        label: kind,
        ...(kind === 'fork' ? { style: { strokeDasharray: '5 4' } } : {}),
      });
    };
    add(each.parentWorkflowId, 'child');
    add(each.forkedFrom, 'fork');
  }
  dagre.layout(graph);
  const nodes: Node<Data>[] = [...all.values()].map((workflow) => {
    const { x, y } = graph.node(workflow.workflowId);
    return {
      id: workflow.workflowId,
      type: 'workflow',
      position: { x: x - WIDTH / 2, y: y - HEIGHT / 2 },
      // Known beforehand, so that a new one counts in what is to be seen before it was measured.
      initialWidth: WIDTH,
      initialHeight: HEIGHT,
      data: { app, workflow, self: workflow.workflowId === self.workflowId },
    };
  });
  return { nodes, edges };
}

function WorkflowNode({ data: { app, workflow, self } }: NodeProps<Node<Data>>) {
  return (
    <Link
      to="/apps/$app/workflows/$id"
      params={{ app, id: workflow.workflowId }}
      className={s.node}
      data-tone={statusTone(workflow.status)}
      data-self={self || undefined}
    >
      <Handle type="target" position={Position.Left} isConnectable={false} style={{ opacity: 0 }} />
      <strong className="clip">
        <Foreign text={workflow.workflowName ?? 'unnamed'} />
      </strong>
      <bdi className="clip mono muted">{workflow.workflowId}</bdi>
      <span>
        <StatusBadge status={workflow.status} />
      </span>
      <Handle type="source" position={Position.Right} isConnectable={false} style={{ opacity: 0 }} />
    </Link>
  );
}

const TYPES = { workflow: WorkflowNode };
