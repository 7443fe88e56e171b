"""How large a flow has to be: memory, disk, cores, replicas and nodes for documents and searches a second.

flow.yml --flow.read_flow--> FlowShape ---+
documents, searches a second: Demand -----+--model.make_plan--> Plan --cli--> table, JSON
costs, measured once and kept: Costs -----+
costs, measured now: measure.py ---------'
"""
